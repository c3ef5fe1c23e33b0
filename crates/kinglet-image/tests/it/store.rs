//! What stays, what goes, and a damaged index.

use kinglet_image::{Credentials, ImageError, Images, PullPolicy, Registries};

use crate::content::{Folder, image, tar};
use crate::registry::Registry;

#[tokio::test]
async fn images_survive_a_restart_and_leftovers_do_not() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    registry.push("app", "v1", &image("x", &[tar(&[("a", "1")])]));
    let name = registry.name("app:v1");
    folder
        .images(&registry.listed())
        .ensure(&name, PullPolicy::IfNotPresent, &Credentials::default())
        .await
        .expect("pull");
    for leftover in ["store/scratch/7/root", "store/layers/sha256-unfinished"] {
        std::fs::create_dir_all(folder.0.join(leftover)).expect("leftover");
    }
    let images = folder.images(&registry.listed());
    images
        .ensure(&name, PullPolicy::Never, &Credentials::default())
        .await
        .expect("still here");
    assert_eq!((folder.layers(), folder.scratch()), (1, 0));
    // A layer that somebody deleted is fetched again.
    std::fs::remove_dir_all(
        std::fs::read_dir(folder.0.join("store/layers"))
            .expect("layers")
            .next()
            .expect("one")
            .expect("entry")
            .path(),
    )
    .expect("delete");
    let images = folder.images(&registry.listed());
    assert!(
        images
            .ensure(&name, PullPolicy::Never, &Credentials::default())
            .await
            .is_err()
    );
    images
        .ensure(&name, PullPolicy::IfNotPresent, &Credentials::default())
        .await
        .expect("healed");
}

#[tokio::test]
async fn removal_spares_what_others_need() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let base = tar(&[("base", "x")]);
    registry.push(
        "one",
        "v1",
        &image("one", &[base.clone(), tar(&[("1", "1")])]),
    );
    registry.push("two", "v1", &image("two", &[base, tar(&[("2", "2")])]));
    let (images, nobody) = (folder.images(&registry.listed()), Credentials::default());
    let (one, two) = (registry.name("one:v1"), registry.name("two:v1"));
    let held = images
        .ensure(&one, PullPolicy::IfNotPresent, &nobody)
        .await
        .expect("one");
    drop(
        images
            .ensure(&two, PullPolicy::IfNotPresent, &nobody)
            .await
            .expect("two"),
    );
    assert!(matches!(
        images.remove(&one).await,
        Err(ImageError::InUse { .. })
    ));
    images.remove(&two).await.expect("two goes");
    assert!(held.layers.iter().all(|layer| layer.is_dir()));
    assert_eq!(
        (folder.layers(), folder.scratch(), images.list().len()),
        (2, 0, 1)
    );
    drop(held);
    images.remove(&one).await.expect("one goes");
    assert_eq!((folder.layers(), images.list().len()), (0, 0));
    assert!(matches!(
        images.remove(&one).await,
        Err(ImageError::NotHere { .. })
    ));
    assert!(
        matches!(
            folder.images(&registry.listed()).remove(&one).await,
            Err(ImageError::NotHere { .. })
        ),
        "also after a restart"
    );
}

#[tokio::test]
async fn an_image_whose_tag_moved_while_it_runs_keeps_its_layers() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let (images, nobody, name) = (
        folder.images(&registry.listed()),
        Credentials::default(),
        registry.name("app:v1"),
    );
    registry.push("app", "v1", &image("old", &[tar(&[("a", "old")])]));
    let held = images
        .ensure(&name, PullPolicy::IfNotPresent, &nobody)
        .await
        .expect("old");
    registry.push("app", "v1", &image("new", &[tar(&[("a", "new")])]));
    drop(
        images
            .ensure(&name, PullPolicy::Always, &nobody)
            .await
            .expect("new"),
    );
    images.remove(&name).await.expect("new goes");
    assert!(held.layers.iter().all(|layer| layer.is_dir()));
    assert!(matches!(
        images
            .remove(&registry.name(&format!("app@{}", held.digest)))
            .await,
        Err(ImageError::InUse { .. })
    ));
}

#[test]
fn a_damaged_index_is_one_clear_sentence() {
    let folder = Folder::new();
    std::fs::write(folder.0.join("index.json"), "{\"names\": [").expect("damage");
    let error = Images::open(&folder.0, Registries::default(), Vec::new())
        .expect_err("damaged")
        .to_string();
    assert!(
        error.contains("index.json") && error.contains("remove it to start with no images"),
        "{error}"
    );
    let error = Images::open(
        &folder.0.join("index.json"),
        Registries::default(),
        Vec::new(),
    )
    .expect_err("a file")
    .to_string();
    assert!(
        error.contains("making") && error.contains("index.json"),
        "{error}"
    );
}
