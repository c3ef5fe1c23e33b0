//! Requests that are under way finish, however their pod goes (spec/serving.md 6.3.6).
//!
//! Each way has a Service of its own, so that all of them run at once.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kinglet_cli::control::StopReport;
use kinglet_cli::location::stop_report;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::{Api, Instance, Setup, instance, until, web};
use serde_json::{Value, json};

use crate::{READY_MAX, run, setup, start};

const PODS: &str = "/api/v1/namespaces/default/pods";
/// What a request asks the sample to wait.
const SHORT_MILLISECONDS: u64 = 4_000;
const LONG_MILLISECONDS: u64 = 12_000;
/// Less than the 26 s that a stop leaves to requests, more than the 16 s that it once did.
const NEARLY_ALL_MILLISECONDS: u64 = 20_000;
/// Longer than the autoscaler needs to take pods away, on a busy machine too.
const SCALE_DOWN_MILLISECONDS: u64 = 45_000;
/// By then a request whose pod was killed has ended.
const KILLED_MAX: Duration = Duration::from_secs(15);

/// How a pod goes.
#[derive(Clone, Copy, Debug)]
enum Ending {
    PodDeleted,
    Evicted,
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
                "eviction",
                Ending::Evicted,
                SHORT_MILLISECONDS
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
                SCALE_DOWN_MILLISECONDS
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
        under_way(&api, "stops", 1).await?;
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
    under_way(api, name, requests.len()).await?;
    end(api, name, &pod, ending)
        .await
        .with_context(|| format!("{ending:?}"))?;
    if matches!(ending, Ending::ScaledDown) {
        until("the autoscaler to take pods away", READY_MAX, || async {
            let left = pods(api, name).await?.into_iter().filter(|pod| {
                let ending = &pod["metadata"]["deletionTimestamp"];
                ending.is_null()
            });
            Ok((left.count() == 1).then_some(()))
        })
        .await?;
        ensure!(
            !requests[0].is_finished(),
            "the pods went while the request was under way"
        );
    }
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
    let listed = pods(api, name).await?;
    let pod = listed
        .first()
        .and_then(|pod| pod["metadata"]["name"].as_str());
    Ok(pod.context("a pod of the Service")?.to_owned())
}

async fn pods(api: &Api, service: &str) -> anyhow::Result<Vec<Value>> {
    let path = format!("{PODS}?labelSelector=serving.knative.dev/service={service}");
    let listed = api.get(&path).await?;
    Ok(listed["items"].as_array().cloned().unwrap_or_default())
}

/// Waits until so many requests have reached the Service's containers, which say so.
async fn under_way(api: &Api, service: &str, requests: usize) -> anyhow::Result<()> {
    until("the requests to be under way", READY_MAX, || async {
        let mut sleeping = 0;
        for pod in pods(api, service).await? {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let log = format!("{PODS}/{name}/log?container=user-container");
            // A pod that has just been made has no log yet.
            let log = api.text(&log).await.unwrap_or_default();
            sleeping += log.matches("sleeping ").count();
        }
        Ok((sleeping >= requests).then_some(()))
    })
    .await
}

type Request = tokio::task::JoinHandle<anyhow::Result<web::Response>>;

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own task, which it joins"
)]
fn query(instance: &Instance, name: &str, query: String) -> Request {
    let gateway = instance.gateway().to_owned();
    let host = format!("{name}.default.localhost");
    tokio::spawn(async move { web::get(&gateway, &host, &format!("/?{query}")).await })
}

fn ask(instance: &Instance, name: &str, milliseconds: u64) -> Request {
    query(instance, name, format!("sleep={milliseconds}"))
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
        Ending::Evicted => {
            let eviction = json!({
                "apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": pod, "namespace": "default"}
            });
            api.create(&format!("{PODS}/{pod}/eviction"), &eviction)
                .await?
        }
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

/// Where nobody waits for a request, it ends in words and at once: a forced deletion, a container that uses too much memory.
#[test]
fn a_request_whose_container_is_killed_is_a_bad_gateway() {
    run(async {
        let (instance, api) = start().await?;
        let pod = create(&api, "forced").await?;
        let request = ask(&instance, "forced", 50_000);
        under_way(&api, "forced", 1).await?;
        api.delete(&format!("{PODS}/{pod}?gracePeriodSeconds=0"))
            .await?;
        bad_gateway(request).await.context("a forced deletion")?;

        let services = serving("default", "services");
        let mut service = sample_service("greedy", "default", "autoscale");
        service["spec"]["template"]["spec"]["containers"][0]["resources"] =
            json!({"limits": {"memory": "64Mi"}});
        api.create(&services, &service).await?;
        api.condition(&format!("{services}/greedy"), "Ready", "True", READY_MAX)
            .await?;
        let request = query(&instance, "greedy", "bloat=512".to_owned());
        bad_gateway(request).await.context("out of memory")?;
        // The container comes back, and with it the Service.
        until("the next request to be served", READY_MAX, || async {
            let request = query(&instance, "greedy", "sleep=1".to_owned());
            Ok((request.await??.status == 200).then_some(()))
        })
        .await?;
        instance.stop().await
    });
}

async fn bad_gateway(request: Request) -> anyhow::Result<()> {
    let answer = tokio::time::timeout(KILLED_MAX, request)
        .await
        .context("the request ends")???;
    ensure!(answer.status == 502, "{}: {}", answer.status, answer.body);
    ensure!(answer.body.contains("EOF"), "{}", answer.body);
    Ok(())
}

/// Requests have 26 s; one that uses all of it and more, and a pod that uses all of its own: both together within the 30 s
/// that [`Instance::stop`] allows. What was cut is told.
#[test]
fn a_stop_has_one_deadline_for_requests_and_containers() {
    run(async {
        let data = instance::scratch("deadline");
        let outcome = stop_with_much_to_do(&data).await;
        let _ = std::fs::remove_dir_all(&data);
        outcome
    });
}

async fn stop_with_much_to_do(data: &Path) -> anyhow::Result<()> {
    let setup = Setup {
        data: Some(data.to_owned()),
        ..setup()
    };
    let instance = setup.start().await?;
    let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "slow", "namespace": "default"},
        "spec": {"terminationGracePeriodSeconds": 60, "containers": [{
            "name": "c", "image": "samples.kinglet/helloworld",
            "lifecycle": {"preStop": {"sleep": {"seconds": 50}}}
        }]}
    });
    api.create(PODS, &pod).await?;
    create(&api, "cut").await?;
    create(&api, "whole").await?;
    until("the pod to run", READY_MAX, || async {
        let phase = api.get(&format!("{PODS}/slow")).await?["status"]["phase"].clone();
        ensure!(phase == "Running", "phase {phase}");
        Ok(Some(()))
    })
    .await?;
    let long = ask(&instance, "cut", 50_000);
    under_way(&api, "cut", 1).await?;
    let short = ask(&instance, "whole", NEARLY_ALL_MILLISECONDS);
    under_way(&api, "whole", 1).await?;
    instance.stop().await?;
    whole(short).await.context("a request that ends in time")?;
    let answer = long.await??;
    ensure!(answer.status == 503, "{}: {}", answer.status, answer.body);
    let report: StopReport = serde_json::from_slice(&std::fs::read(stop_report(data))?)?;
    let told = report.line().context("nothing is said to be cut")?;
    ensure!(
        told == "Requests that were still under way after 26 s were cut: default/cut-00001 (1)",
        "{told}"
    );
    Ok(())
}
