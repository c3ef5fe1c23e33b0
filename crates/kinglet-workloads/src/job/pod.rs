//! The Pod of a Job's template: pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinglet_reconcile::owner_reference;

use super::decide::{FINALIZER, INDEX};

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The Pod to be made; `index` where the Job is indexed.
pub(super) fn of(job: &Job, index: Option<u32>) -> Pod {
    let template = job
        .spec
        .as_ref()
        .map(|spec| spec.template.clone())
        .unwrap_or_default();
    let of_template = template.metadata.unwrap_or_default();
    let name = job.metadata.name.as_deref().unwrap_or("");
    let mut finalizers = of_template.finalizers.unwrap_or_default();
    finalizers.push(FINALIZER.to_owned());
    let mut pod = Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: job.metadata.namespace.clone(),
            labels: of_template.labels,
            annotations: of_template.annotations,
            finalizers: Some(finalizers),
            owner_references: Some(vec![owner_reference(job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    };
    if let Some(index) = index {
        indexed(&mut pod, name, index);
    }
    pod
}

/// Tells a Pod its index: in its name, its host name, a label, an annotation and an environment variable.
fn indexed(pod: &mut Pod, job: &str, index: u32) {
    pod.metadata.generate_name = Some(format!("{job}-{index}-"));
    for map in [&mut pod.metadata.labels, &mut pod.metadata.annotations] {
        map.get_or_insert_default()
            .insert(INDEX.to_owned(), index.to_string());
    }
    let Some(spec) = &mut pod.spec else { return };
    if spec.hostname.as_deref().is_none_or(str::is_empty) {
        spec.hostname = Some(format!("{job}-{index}"));
    }
    spec.containers.iter_mut().for_each(add_variable);
    spec.init_containers
        .iter_mut()
        .flatten()
        .for_each(add_variable);
}

fn add_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|each| each.name == INDEX_VARIABLE) {
        return;
    }
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{INDEX}']"),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}
