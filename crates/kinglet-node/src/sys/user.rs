//! Users and groups as the container's own `/etc/passwd` and `/etc/group` name them.

use crate::wire::User;

/// Bound of the account files that are read; larger ones are cut.
pub(crate) const ACCOUNT_FILE_BYTES_MAX: u64 = 1 << 20;

/// The largest id that runtimes take, in account files too.
const ID_MAX: u32 = i32::MAX.cast_unsigned();

/// Who a process will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Resolves what image and Pod say against the account files (empty text where a file is missing).
pub(crate) fn identify(wanted: &User, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, image_group) = match wanted.of_image.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|text| !text.is_empty())),
        None => (wanted.of_image.as_str(), None),
    };
    let account = match wanted.uid {
        Some(uid) => accounts(passwd)
            .find(|account| account.uid == uid)
            .map_or(Ok((uid, None)), |found| Ok((uid, Some(found)))),
        None if user.is_empty() => Ok((0, accounts(passwd).find(|account| account.uid == 0))),
        None => match accounts(passwd).find(|account| account.name == user) {
            Some(found) => Ok((found.uid, Some(found))),
            None => match user.parse::<u32>() {
                Ok(uid) => Ok((uid, accounts(passwd).find(|account| account.uid == uid))),
                Err(_) => Err(format!(
                    "unable to find user {user}: no matching entries in passwd file"
                )),
            },
        },
    };
    let (uid, account) = account?;
    let gid = match (wanted.gid, image_group) {
        (Some(gid), _) => gid,
        // A uid from the Pod with a group from the image keeps the image's group only where the uid is the image's too.
        (None, Some(name)) if wanted.uid.is_none() => {
            match groups(group).find(|(known, ..)| *known == name) {
                Some((_, gid, _)) => gid,
                None => name.parse().map_err(|_| {
                    format!("unable to find group {name}: no matching entries in group file")
                })?,
            }
        }
        (None, _) => account.as_ref().map_or(0, |found| found.gid),
    };
    let mut all: Vec<u32> = wanted.groups.clone();
    if let Some(found) = &account {
        all.extend(
            groups(group)
                .filter(|(_, _, states)| states.split(',').any(|state| state == found.name))
                .map(|(_, gid, _)| gid),
        );
    }
    all.push(gid);
    all.sort_unstable();
    all.dedup();
    // The kernel takes the last number for "as before", which is root.
    for (what, id) in [("user", uid)]
        .into_iter()
        .chain(all.iter().map(|gid| ("group", *gid)))
    {
        if id > ID_MAX {
            return Err(format!("{what} id {id} is out of range"));
        }
    }
    if wanted.must_not_be_root && uid == 0 {
        return Err("container has runAsNonRoot and image will run as root".to_owned());
    }
    let home = account
        .map(|found| found.home)
        .filter(|home| !home.is_empty())
        .unwrap_or("/")
        .to_owned();
    Ok(Identity {
        uid,
        gid,
        groups: all,
        home,
    })
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        let uid = parts.nth(1)?.parse().ok()?;
        let gid = parts.next()?.parse().ok()?;
        let home = parts.nth(1).unwrap_or("");
        Some(Account {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        let gid = parts.nth(1)?.parse().ok()?;
        Some((name, gid, parts.next().unwrap_or("")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:40:web,other\n";

    fn user(of_image: &str) -> User {
        User {
            of_image: of_image.to_owned(),
            ..User::default()
        }
    }

    /// setresuid(-1) changes nothing: the program would go on as root.
    #[test]
    fn ids_that_mean_no_change_are_refused() {
        const PASSWD: &str =
            "ghost:x:4294967295:1000::/:\nplain:x:1000:4294967295::/:\nhost:x:2147483648:1::/:\n";
        const GROUP: &str = "ghosts:x:4294967295:fine\n";
        for wanted in [
            user("ghost"),
            user("plain"),
            user("host"),
            user("4294967295"),
            user("1:4294967295"),
            user("1:ghosts"),
            User {
                uid: Some(u32::MAX),
                ..user("")
            },
            User {
                groups: vec![u32::MAX],
                ..user("1:1")
            },
        ] {
            let wanted = User {
                must_not_be_root: true,
                ..wanted
            };
            let said = identify(&wanted, PASSWD, GROUP).expect_err("refused");
            assert!(said.contains("out of range"), "{wanted:?}: {said}");
        }
    }

    #[test]
    fn users_of_images_and_pods() {
        let of = |wanted: &User| {
            identify(wanted, PASSWD, GROUP).map(|who| (who.uid, who.gid, who.groups, who.home))
        };
        assert_eq!(of(&user("")), Ok((0, 0, vec![0], "/root".to_owned())));
        assert_eq!(
            of(&user("web")),
            Ok((33, 34, vec![34, 40], "/var/www".to_owned()))
        );
        assert_eq!(
            of(&user("33")),
            Ok((33, 34, vec![34, 40], "/var/www".to_owned()))
        );
        assert_eq!(
            of(&user("65532:65532")),
            Ok((65532, 65532, vec![65532], "/".to_owned()))
        );
        assert_eq!(
            of(&user("web:logs")),
            Ok((33, 40, vec![40], "/var/www".to_owned()))
        );
        assert_eq!(
            of(&User {
                uid: Some(1000),
                ..user("web:logs")
            }),
            Ok((1000, 0, vec![0], "/".to_owned()))
        );
        assert_eq!(
            of(&User {
                uid: Some(7),
                gid: Some(8),
                groups: vec![9],
                ..user("")
            }),
            Ok((7, 8, vec![8, 9], "/".to_owned()))
        );
        assert!(
            of(&user("nobody-here"))
                .expect_err("unknown")
                .contains("unable to find user nobody-here")
        );
        assert!(
            of(&user("web:nope"))
                .expect_err("unknown")
                .contains("unable to find group nope")
        );
        assert!(
            of(&User {
                must_not_be_root: true,
                ..user("")
            })
            .is_err()
        );
        assert!(identify(&user(""), "", "").is_ok());
    }
}
