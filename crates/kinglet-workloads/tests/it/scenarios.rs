//! What must hold whichever API server is behind the client.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kinglet_process::Tasks;
use kinglet_process::clock::Clock;
use kinglet_reconcile::{Caches, Cascade, Context, Object, name_of, uid_of};
use kinglet_workloads::{Capacity, Options, Parts};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// Runs every scenario, each in a namespace of its own, with one set of controllers.
pub(crate) async fn all(client: &kube::Client) {
    let (run, tasks) = Run::start(client, Parts::ALL);
    run.dangling().await;
    run.deployment_life().await;
    run.services().await;
    run.deletion().await;
    run.custom_resources().await;
    Box::pin(run.jobs()).await;
    run.unschedulable().await;
    run.namespaces_go(&["life", "services", "deletion", "custom", "jobs", "crowded"])
        .await;
    assert!(
        tasks.shutdown(Duration::from_secs(10)).await,
        "every task ends"
    );
}

/// What must hold with Kubernetes' controllers and only our binder.
pub(crate) async fn binder_only(client: &kube::Client) {
    let (run, tasks) = Run::start(client, Parts::BINDER);
    run.deployment_life().await;
    run.unschedulable().await;
    assert!(
        tasks.shutdown(Duration::from_secs(10)).await,
        "every task ends"
    );
}

pub(crate) struct Run {
    client: kube::Client,
    context: Context,
}

fn typed<K: Object>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn deployment(name: &str, replicas: i32, image: &str) -> Deployment {
    typed(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "revisionHistoryLimit": 0, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "c", "image": image, "ports": [{"name": "web", "containerPort": 8012}]}]
            }}
        }
    }))
}

/// Awaits a condition; what was last seen is in the failure.
pub(crate) async fn until<T: std::fmt::Debug, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let began = Instant::now();
    loop {
        match check().await {
            Ok(value) => return value,
            Err(seen) if began.elapsed() > Duration::from_secs(20) => {
                panic!("{what}: last seen {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

impl Run {
    pub(crate) fn start(client: &kube::Client, parts: Parts) -> (Self, Tasks) {
        let tasks = Tasks::new();
        let context = Context::new(&Caches::new(client.clone(), tasks.clone(), Clock::system()));
        let capacity = Capacity {
            cpu_millis: 2000,
            memory_bytes: 4 << 30,
            pods: 110,
            not_started: Vec::new(),
        };
        let options = Options {
            node_name: "node1".into(),
            capacity,
            root_ca_pem: Some("PEM".into()),
            parts,
        };
        kinglet_workloads::run(&context, options);
        super::fake_node::start(&context);
        (
            Self {
                client: client.clone(),
                context,
            },
            tasks,
        )
    }

    fn api<K: Object + kube::Resource<Scope = kube::core::NamespaceResourceScope>>(
        &self,
        namespace: &str,
    ) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Awaits a condition of a Job; answers the Job.
    async fn job_is(&self, jobs: &Api<Job>, name: &str, condition: &str) -> Job {
        until(&format!("job {name} is {condition}"), || async {
            let job = jobs.get(name).await.map_err(|error| error.to_string())?;
            let status = job.status.clone().unwrap_or_default();
            let is = status
                .conditions
                .iter()
                .flatten()
                .any(|each| each.type_ == condition && each.status == "True");
            if is {
                Ok(job)
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await
    }

    /// Jobs end as their Pods do, count each of them once, and take them along.
    async fn jobs(&self) {
        self.namespace("jobs").await;
        let (jobs, pods) = (self.api::<Job>("jobs"), self.api::<Pod>("jobs"));
        let job = |name: &str, ends: &str, spec: Value| -> Job {
            let mut job = json!({"metadata": {"name": name}, "spec": {"template": {
                "metadata": {"annotations": {"ends": ends}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}}});
            for (key, value) in spec.as_object().unwrap() {
                job["spec"][key] = value.clone();
            }
            typed(job)
        };
        let make = PostParams::default();
        let several = job(
            "several",
            "Succeeded",
            json!({"completions": 5, "parallelism": 2}),
        );
        jobs.create(&make, &several).await.unwrap();
        let numbered = job(
            "numbered",
            "Succeeded",
            json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"}),
        );
        jobs.create(&make, &numbered).await.unwrap();
        let doomed = job("doomed", "Failed", json!({"backoffLimit": 0}));
        jobs.create(&make, &doomed).await.unwrap();
        let status = |job: Job| job.status.unwrap();
        let several = status(self.job_is(&jobs, "several", "Complete").await);
        assert_eq!((several.succeeded, several.failed), (Some(5), None));
        assert!(several.completion_time.is_some());
        let numbered = status(self.job_is(&jobs, "numbered", "Complete").await);
        assert_eq!(
            (numbered.completed_indexes.as_deref(), numbered.succeeded),
            (Some("0-2"), Some(3))
        );
        let doomed = status(self.job_is(&jobs, "doomed", "Failed").await);
        assert_eq!(doomed.failed, Some(1));
        let all = pods.list(&ListParams::default()).await.unwrap();
        assert_eq!(all.items.len(), 9, "each Pod was made once");
        assert!(
            all.items
                .iter()
                .all(|pod| pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty))
        );
        let gone = DeleteParams::background();
        for name in ["several", "numbered", "doomed"] {
            jobs.delete(name, &gone).await.unwrap();
        }
        until("the Pods go with their Jobs", || async {
            let left = pods.list(&ListParams::default()).await.unwrap().items;
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{} Pods", left.len()))
            }
        })
        .await;
        // A Job that goes while its Pods run holds none of them.
        let running = job("running", "", json!({"parallelism": 2, "completions": 2}));
        let mut running = running;
        running.spec.as_mut().unwrap().template.metadata = None;
        jobs.create(&make, &running).await.unwrap();
        until("the Pods run", || async {
            let listed = pods.list(&ListParams::default()).await.unwrap().items;
            let ready = listed.iter().filter(|pod| {
                let status = pod.status.as_ref();
                status.and_then(|status| status.phase.as_deref()) == Some("Running")
            });
            match ready.count() {
                2 => Ok(()),
                other => Err(format!("{other} run")),
            }
        })
        .await;
        jobs.delete("running", &DeleteParams::foreground())
            .await
            .unwrap();
        until("the Job and its Pods are gone", || async {
            let left = pods.list(&ListParams::default()).await.unwrap().items.len();
            let job = jobs.get_opt("running").await.unwrap();
            if left == 0 && job.is_none() {
                Ok(())
            } else {
                Err(format!("{left} Pods, job {}", job.is_some()))
            }
        })
        .await;
    }

    pub(crate) async fn namespace(&self, name: &str) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces
            .create(
                &PostParams::default(),
                &typed(json!({"metadata": {"name": name}})),
            )
            .await
            .unwrap();
        until("the namespace has its ServiceAccount and CA", || async {
            let account = self
                .api::<ServiceAccount>(name)
                .get_opt("default")
                .await
                .unwrap();
            let map = self
                .api::<ConfigMap>(name)
                .get_opt("kube-root-ca.crt")
                .await
                .unwrap();
            if account.is_some() && map.is_some() {
                Ok(())
            } else {
                Err(format!("{account:?} {map:?}"))
            }
        })
        .await;
    }

    async fn settled(&self, namespace: &str, name: &str, replicas: i32) -> Deployment {
        until("the rollout is done", || async {
            let seen = self.api::<Deployment>(namespace).get(name).await.unwrap();
            let status = seen.status.clone().unwrap_or_default();
            let progressing = status
                .conditions
                .iter()
                .flatten()
                .find(|condition| condition.type_ == "Progressing");
            let done = status.observed_generation == seen.metadata.generation
                && progressing.and_then(|condition| condition.reason.as_deref())
                    == Some("NewReplicaSetAvailable")
                && status.available_replicas.unwrap_or(0) == replicas
                && status.replicas.unwrap_or(0) == replicas;
            if done {
                Ok(seen)
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await
    }

    async fn gone<
        K: Object + std::fmt::Debug + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    >(
        &self,
        namespace: &str,
        labels: &str,
    ) {
        until("nothing is left", || async {
            let left = self
                .api::<K>(namespace)
                .list(&ListParams::default().labels(labels))
                .await
                .unwrap()
                .items;
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        })
        .await;
    }

    async fn deployment_life(&self) {
        self.namespace("life").await;
        let api = self.api::<Deployment>("life");
        let began = Instant::now();
        api.create(&PostParams::default(), &deployment("d", 2, "v1"))
            .await
            .unwrap();
        let first = self.settled("life", "d", 2).await;
        eprintln!("deployment of two is available after {:?}", began.elapsed());
        assert_eq!(
            first.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"],
            "1"
        );

        api.patch(
            "d",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"replicas": 0}})),
        )
        .await
        .unwrap();
        self.settled("life", "d", 0).await;
        self.gone::<Pod>("life", "app=d").await;

        let began = Instant::now();
        api.patch(
            "d",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"replicas": 1}})),
        )
        .await
        .unwrap();
        self.settled("life", "d", 1).await;
        eprintln!("woken from zero after {:?}", began.elapsed());

        let image =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v2"}]}}}});
        api.patch("d", &PatchParams::default(), &Patch::Strategic(image))
            .await
            .unwrap();
        let second = self.settled("life", "d", 1).await;
        assert_eq!(
            second.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"],
            "2"
        );
        until("the old replica set is cleaned up", || async {
            let sets = self
                .api::<ReplicaSet>("life")
                .list(&ListParams::default())
                .await
                .unwrap()
                .items;
            if sets.len() == 1 {
                Ok(())
            } else {
                Err(format!("{sets:?}"))
            }
        })
        .await;
        let pods = self
            .api::<Pod>("life")
            .list(&ListParams::default())
            .await
            .unwrap()
            .items;
        assert_eq!(
            pods.iter()
                .filter(|pod| pod.metadata.deletion_timestamp.is_none())
                .count(),
            1
        );
    }

    async fn services(&self) {
        self.namespace("services").await;
        let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}]);
        let service = json!({"metadata": {"name": "s", "labels": {"l": "1"}}, "spec": {"selector": {"app": "d"}, "ports": ports}});
        self.api::<Service>("services")
            .create(&PostParams::default(), &typed(service))
            .await
            .unwrap();
        self.api::<Deployment>("services")
            .create(&PostParams::default(), &deployment("d", 2, "v1"))
            .await
            .unwrap();
        self.settled("services", "d", 2).await;
        let slice = until("the slice names both pods", || async {
            let labels = ListParams::default().labels("kubernetes.io/service-name=s");
            let slices = self
                .api::<EndpointSlice>("services")
                .list(&labels)
                .await
                .unwrap()
                .items;
            let ready = slices
                .iter()
                .flat_map(|slice| &slice.endpoints)
                .filter(|e| e.conditions.as_ref().unwrap().ready == Some(true))
                .count();
            if slices.len() == 1 && ready == 2 {
                Ok(slices[0].clone())
            } else {
                Err(format!("{slices:?}"))
            }
        })
        .await;
        assert_eq!(slice.ports.unwrap()[0].port, Some(8012));
        until("the Endpoints name both pods", || async {
            let endpoints = self
                .api::<Endpoints>("services")
                .get_opt("s")
                .await
                .unwrap();
            let count = endpoints
                .iter()
                .flat_map(|e| e.subsets.iter().flatten())
                .flat_map(|s| s.addresses.iter().flatten())
                .count();
            if count == 2 {
                Ok(())
            } else {
                Err(format!("{endpoints:?}"))
            }
        })
        .await;

        let plain = json!({"metadata": {"name": "m"}, "spec": {"ports": [{"port": 80}]}});
        self.api::<Service>("services")
            .create(&PostParams::default(), &typed(plain))
            .await
            .unwrap();
        let by_hand = json!({"metadata": {"name": "m"}, "subsets": [{"addresses": [{"ip": "10.1.1.1"}], "ports": [{"port": 8080}]}]});
        self.api::<Endpoints>("services")
            .create(&PostParams::default(), &typed(by_hand))
            .await
            .unwrap();
        until("what is written by hand is mirrored", || async {
            let labels = ListParams::default().labels("kubernetes.io/service-name=m");
            let slices = self
                .api::<EndpointSlice>("services")
                .list(&labels)
                .await
                .unwrap()
                .items;
            if slices.len() == 1 && slices[0].endpoints.len() == 1 {
                Ok(())
            } else {
                Err(format!("{slices:?}"))
            }
        })
        .await;
        self.api::<Service>("services")
            .delete("s", &DeleteParams::default())
            .await
            .unwrap();
        self.gone::<EndpointSlice>("services", "kubernetes.io/service-name=s")
            .await;
        until("the Endpoints go with their Service", || async {
            match self
                .api::<Endpoints>("services")
                .get_opt("s")
                .await
                .unwrap()
            {
                None => Ok(()),
                Some(left) => Err(format!("{left:?}")),
            }
        })
        .await;
    }

    async fn deletion(&self) {
        self.namespace("deletion").await;
        let api = self.api::<Deployment>("deletion");
        for (name, how) in [
            ("background", DeleteParams::background()),
            ("foreground", DeleteParams::foreground()),
        ] {
            api.create(&PostParams::default(), &deployment(name, 1, "v1"))
                .await
                .unwrap();
            self.settled("deletion", name, 1).await;
            let began = Instant::now();
            api.delete(name, &how).await.unwrap();
            self.gone::<Pod>("deletion", &format!("app={name}")).await;
            self.gone::<ReplicaSet>("deletion", &format!("app={name}"))
                .await;
            until("the owner is gone", || async {
                match api.get_opt(name).await.unwrap() {
                    None => Ok(()),
                    Some(left) => Err(format!("{left:?}")),
                }
            })
            .await;
            eprintln!("{name} deletion of three levels took {:?}", began.elapsed());
        }
        api.create(&PostParams::default(), &deployment("orphan", 1, "v1"))
            .await
            .unwrap();
        self.settled("deletion", "orphan", 1).await;
        let labels = ListParams::default().labels("app=orphan");
        let sets = self.api::<ReplicaSet>("deletion");
        let pods = self.api::<Pod>("deletion");
        let set = sets.list(&labels).await.unwrap().items.remove(0);
        let pod = pods.list(&labels).await.unwrap().items.remove(0);
        api.delete("orphan", &DeleteParams::orphan()).await.unwrap();
        until("the owner is gone", || async {
            match api.get_opt("orphan").await.unwrap() {
                None => Ok(()),
                Some(left) => Err(format!("{:?}", left.metadata)),
            }
        })
        .await;
        let left = sets.get(name_of(&set)).await.unwrap();
        assert_eq!(uid_of(&left), uid_of(&set));
        assert_eq!(left.metadata.owner_references, None, "it is let go");
        assert_eq!(left.metadata.deletion_timestamp, None, "it stays");
        let left = pods.get(name_of(&pod)).await.unwrap();
        assert_eq!(uid_of(&left), uid_of(&pod));
        assert_eq!(
            left.metadata.owner_references,
            pod.metadata.owner_references
        );
        assert_eq!(left.metadata.deletion_timestamp, None, "it stays");

        sets.delete(name_of(&set), &DeleteParams::background())
            .await
            .unwrap();
        self.gone::<Pod>("deletion", "app=orphan").await;
        self.gone::<ReplicaSet>("deletion", "app=orphan").await;
    }

    /// What names an owner that never was, of a kind that is served only later: looked at, and left alone for now.
    async fn dangling(&self) {
        self.namespace("custom").await;
        let stranger = json!({"apiVersion": "test.kinglet.dev/v1", "kind": "Thing", "name": "never", "uid": "00000000-0000-0000-0000-000000000000"});
        let dangling = json!({"metadata": {"name": "dangling", "labels": {"l": "2"}, "ownerReferences": [stranger]}});
        // Its owner's kind is served, so it goes as soon as it is looked at: by then the one before it was looked at, too.
        let absent = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "never", "uid": "00000000-0000-0000-0000-000000000001"});
        let marker = json!({"metadata": {"name": "marker", "labels": {"l": "3"}, "ownerReferences": [absent]}});
        for map in [dangling, marker] {
            self.api::<ConfigMap>("custom")
                .create(&PostParams::default(), &typed(map))
                .await
                .unwrap();
        }
        self.gone::<ConfigMap>("custom", "l=3").await;
        assert!(self.has_dangling().await, "its owner may come back");
    }

    async fn has_dangling(&self) -> bool {
        let dangling = self.api::<ConfigMap>("custom").get_opt("dangling").await;
        dangling.unwrap().is_some()
    }

    async fn custom_resources(&self) {
        assert!(
            self.has_dangling().await,
            "nobody may have asked for its owner"
        );
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let definition = json!({
            "metadata": {"name": "things.test.kinglet.dev"},
            "spec": {
                "group": "test.kinglet.dev", "scope": "Namespaced",
                "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]
            }
        });
        definitions
            .create(&PostParams::default(), &typed(definition))
            .await
            .unwrap();
        let resource =
            ApiResource::from_gvk(&GroupVersionKind::gvk("test.kinglet.dev", "v1", "Thing"));
        let things: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), "custom", &resource);
        let owner = until("the new kind is served", || async {
            let thing = DynamicObject::new("owner", &resource);
            things
                .create(&PostParams::default(), &thing)
                .await
                .map_err(|error| error.to_string())
        })
        .await;
        let reference = json!({"apiVersion": "test.kinglet.dev/v1", "kind": "Thing", "name": "owner", "uid": owner.metadata.uid});
        let map = json!({"metadata": {"name": "owned", "labels": {"l": "1"}, "ownerReferences": [reference]}});
        self.api::<ConfigMap>("custom")
            .create(&PostParams::default(), &typed(map))
            .await
            .unwrap();
        self.gone::<ConfigMap>("custom", "l=2").await;
        assert!(
            self.api::<ConfigMap>("custom")
                .get_opt("owned")
                .await
                .unwrap()
                .is_some(),
            "an owner that exists keeps its own"
        );
        things
            .delete("owner", &DeleteParams::default())
            .await
            .unwrap();
        self.gone::<ConfigMap>("custom", "l=1").await;
    }

    async fn unschedulable(&self) {
        self.namespace("crowded").await;
        let pod = |name: &str, cpu: &str| -> Pod {
            let resources = json!({"requests": {"cpu": cpu}});
            typed(
                json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i", "resources": resources}]}}),
            )
        };
        let api = self.api::<Pod>("crowded");
        let big = api
            .create(&PostParams::default(), &pod("big", "1500m"))
            .await
            .unwrap();
        until("the first is bound", || async {
            let seen = api.get("big").await.unwrap();
            if seen.spec.as_ref().unwrap().node_name.as_deref() == Some("node1") {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
        api.create(&PostParams::default(), &pod("second", "1"))
            .await
            .unwrap();
        until("the second waits in the scheduler's words", || async {
            let seen = api.get("second").await.unwrap();
            let conditions = seen.status.unwrap().conditions.unwrap_or_default();
            let message = conditions
                .iter()
                .find(|c| c.type_ == "PodScheduled")
                .and_then(|c| c.message.clone())
                .unwrap_or_default();
            if message.starts_with("0/1 nodes are available: 1 Insufficient cpu.") {
                Ok(())
            } else {
                Err(message)
            }
        })
        .await;
        self.context
            .delete(&big, Cascade::Background)
            .await
            .unwrap();
        until("room wakes it", || async {
            let seen = api.get("second").await.unwrap();
            if seen.spec.as_ref().unwrap().node_name.is_some() {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
        assert!(!uid_of(&big).is_empty() && name_of(&big) == "big");
    }

    async fn namespaces_go(&self, names: &[&str]) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in names {
            namespaces
                .delete(name, &DeleteParams::default())
                .await
                .unwrap();
        }
        for name in names {
            until("the namespace is gone", || async {
                match namespaces.get_opt(name).await.unwrap() {
                    None => Ok(()),
                    Some(left) => Err(format!("{:?}", left.status)),
                }
            })
            .await;
        }
    }
}
