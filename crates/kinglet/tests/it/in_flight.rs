//! Requests that are under way finish, however their pod goes (spec/serving.md 6.3.6).
//!
//! Each way has a Service of its own, so that all of them run at once.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::{Api, Instance, instance, until, web};
use serde_json::{Value, json};

use crate::{READY_MAX, run, start};

const PODS: &str = "/api/v1/namespaces/default/pods";
/// What a request asks the sample to wait.
const SHORT_MILLISECONDS: u64 = 4_000;
const LONG_MILLISECONDS: u64 = 12_000;
/// A request has reached its container by then. Where a busy machine needs longer, the test shows less and passes.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// How a pod goes.
#[derive(Clone, Copy, Debug)]
enum Ending {
    PodDeleted,
    ServiceDeleted,
    RolloutRestarted,
    TemplateChanged,
    ScaledDown,
}

#[test]
fn requests_under_way_finish_however_their_pod_goes() {
    run(async {
        let (instance, api) = start().await?;
        tokio::try_join!(
            survives(
                &instance,
                &api,
                "pod",
                Ending::PodDeleted,
                LONG_MILLISECONDS
            ),
            survives(
                &instance,
                &api,
                "service",
                Ending::ServiceDeleted,
                SHORT_MILLISECONDS
            ),
            survives(
                &instance,
                &api,
                "restart",
                Ending::RolloutRestarted,
                SHORT_MILLISECONDS
            ),
            survives(
                &instance,
                &api,
                "template",
                Ending::TemplateChanged,
                SHORT_MILLISECONDS
            ),
            survives(
                &instance,
                &api,
                "scale",
                Ending::ScaledDown,
                LONG_MILLISECONDS
            ),
        )?;
        instance.stop().await
    });
}

#[test]
fn requests_under_way_finish_when_kinglet_stops() {
    run(async {
        let (instance, api) = start().await?;
        create(&api, "stops").await?;
        let request = ask(&instance, "stops", SHORT_MILLISECONDS);
        tokio::time::sleep(UNDER_WAY).await;
        instance::terminate(instance.ready.pid);
        whole(request).await.context("while kinglet stops")?;
        instance.stop().await
    });
}

async fn survives(
    instance: &Instance,
    api: &Api,
    name: &str,
    ending: Ending,
    milliseconds: u64,
) -> anyhow::Result<()> {
    let pod = create(api, name).await?;
    let mut requests = vec![ask(instance, name, milliseconds)];
    if matches!(ending, Ending::ScaledDown) {
        // Two more make more pods, of which the autoscaler takes some away while the first request goes on.
        requests.extend([(); 2].map(|()| ask(instance, name, SHORT_MILLISECONDS)));
    }
    tokio::time::sleep(UNDER_WAY).await;
    end(api, name, &pod, ending)
        .await
        .with_context(|| format!("{ending:?}"))?;
    for request in requests {
        whole(request)
            .await
            .with_context(|| format!("{ending:?}"))?;
    }
    if matches!(ending, Ending::ScaledDown) {
        return Ok(());
    }
    until("the pod to be gone", READY_MAX, || async {
        let found = api.find(&format!("{PODS}/{pod}")).await?;
        Ok(found.is_none().then_some(()))
    })
    .await
    .with_context(|| format!("{ending:?}"))
}

/// A Service of the sample that can wait, one request to a pod; returns its pod.
async fn create(api: &Api, name: &str) -> anyhow::Result<String> {
    let services = serving("default", "services");
    let mut service = sample_service(name, "default", "autoscale");
    service["spec"]["template"]["metadata"]["annotations"] = json!({
        "autoscaling.knative.dev/min-scale": "1", "autoscaling.knative.dev/window": "6s",
        "autoscaling.knative.dev/target-utilization-percentage": "100",
    });
    service["spec"]["template"]["spec"]["timeoutSeconds"] = json!(60);
    service["spec"]["template"]["spec"]["containerConcurrency"] = json!(1);
    api.create(&services, &service).await?;
    api.condition(&format!("{services}/{name}"), "Ready", "True", READY_MAX)
        .await?;
    let path = format!("{PODS}?labelSelector=serving.knative.dev/service={name}");
    let listed = api.get(&path).await?;
    let pod = listed["items"][0]["metadata"]["name"].as_str();
    Ok(pod.context("a pod of the Service")?.to_owned())
}

type Request = tokio::task::JoinHandle<anyhow::Result<web::Response>>;

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own task, which it joins"
)]
fn ask(instance: &Instance, name: &str, milliseconds: u64) -> Request {
    let gateway = instance.gateway().to_owned();
    let host = format!("{name}.default.localhost");
    tokio::spawn(async move { web::get(&gateway, &host, &format!("/?sleep={milliseconds}")).await })
}

async fn whole(request: Request) -> anyhow::Result<()> {
    let answer = request.await??;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
    ensure!(answer.body.contains("Slept for"), "{}", answer.body);
    Ok(())
}

async fn end(api: &Api, name: &str, pod: &str, ending: Ending) -> anyhow::Result<()> {
    let service = format!("{}/{name}", serving("default", "services"));
    let annotate = |key: &str, value: &str| -> Value {
        json!({"spec": {"template": {"metadata": {"annotations": {key: value}}}}})
    };
    match ending {
        Ending::PodDeleted => api.delete(&format!("{PODS}/{pod}")).await?,
        Ending::ServiceDeleted => api.delete(&service).await?,
        Ending::RolloutRestarted => {
            let deployment =
                format!("/apis/apps/v1/namespaces/default/deployments/{name}-00001-deployment");
            let patch = annotate("kubectl.kubernetes.io/restartedAt", "2026-01-01T00:00:00Z");
            api.merge(&deployment, &patch).await?
        }
        Ending::TemplateChanged => {
            // The old Revision is no longer wanted and goes to zero at once when traffic has left it.
            api.merge(&service, &annotate("example.com/changed", "yes"))
                .await?
        }
        // The autoscaler does it by itself.
        Ending::ScaledDown => return Ok(()),
    };
    Ok(())
}

/// A request that uses all its time, then a pod that uses all of its own: both together within the 30 s that
/// [`Instance::stop`] allows.
#[test]
fn a_stop_has_one_deadline_for_requests_and_containers() {
    run(async {
        let (instance, api) = start().await?;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "slow", "namespace": "default"},
            "spec": {"terminationGracePeriodSeconds": 60, "containers": [{
                "name": "c", "image": "samples.kinglet/helloworld",
                "lifecycle": {"preStop": {"sleep": {"seconds": 50}}}
            }]}
        });
        api.create(PODS, &pod).await?;
        create(&api, "cut").await?;
        until("the pod to run", READY_MAX, || async {
            let phase = api.get(&format!("{PODS}/slow")).await?["status"]["phase"].clone();
            ensure!(phase == "Running", "phase {phase}");
            Ok(Some(()))
        })
        .await?;
        let request = ask(&instance, "cut", 50_000);
        tokio::time::sleep(UNDER_WAY).await;
        instance.stop().await?;
        // How it is cut is not promised.
        drop(request.await?);
        Ok(())
    });
}
