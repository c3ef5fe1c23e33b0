//! OpenAPI documents, made of the served kinds when they are asked for.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, header};
use serde_json::Value;

use super::{document, subresources};
use crate::body::{ApiResponse, json_bytes};
use crate::openapi::{self, Served};
use crate::registry::{Registry, Version};
use crate::state::ServerState;
use crate::status::Status;

/// The schemas of CRDs lie in the store; they are read only when OpenAPI is asked for.
fn with_served<R>(
    server: &ServerState,
    version: &Version,
    run: impl FnOnce(&[Served<'_>]) -> R,
) -> R {
    let definitions: std::collections::HashMap<&str, Value> = version
        .kinds
        .values()
        .filter_map(|kind| {
            let name = kind.definition.as_deref()?;
            let entry = server.store.get(&format!(
                "apiextensions.k8s.io/customresourcedefinitions/{name}"
            ))?;
            let definition: Value = serde_json::from_slice(&entry.value).ok()?;
            let versions = definition["spec"]["versions"].as_array()?;
            let found = versions
                .iter()
                .find(|candidate| candidate["name"] == *version.name)?;
            Some((name, found.pointer("/schema/openAPIV3Schema")?.clone()))
        })
        .collect();
    let subs: Vec<Vec<&str>> = version
        .kinds
        .values()
        .map(|kind| subresources(kind).iter().map(|sub| sub.name).collect())
        .collect();
    let served: Vec<Served<'_>> = version
        .kinds
        .values()
        .zip(&subs)
        .map(|(kind, subresources)| Served {
            kind: &kind.kind,
            plural: &kind.plural,
            namespaced: kind.namespaced,
            subresources,
            schema: kind
                .definition
                .as_deref()
                .and_then(|name| definitions.get(name)),
        })
        .collect();
    run(&served)
}

fn place_of(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

pub(super) fn index(server: &ServerState, registry: &Registry) -> Bytes {
    let documents: Vec<(String, String)> = registry
        .groups
        .iter()
        .flat_map(|(group, versions)| versions.iter().map(move |version| (group, version)))
        .map(|(group, version)| {
            let print = with_served(server, version, |served| {
                openapi::fingerprint(group, &version.name, served)
            });
            (place_of(group, &version.name), print)
        })
        .collect();
    Bytes::from(openapi::index(&documents).to_string())
}

pub(super) fn v3(
    server: &ServerState,
    registry: &Registry,
    place: &str,
    parts: &Parts,
) -> Result<ApiResponse, Status> {
    let (group, name) = match place.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Err(Status::no_such_path()),
    };
    let version = registry
        .version(group, name)
        .ok_or_else(Status::no_such_path)?;
    let asked_protobuf = parts
        .headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| {
            accept.contains("protobuf") && !accept.contains("json") && !accept.contains("*/*")
        });
    if asked_protobuf {
        return Err(Status::not_acceptable("application/json"));
    }
    let bytes = document(server, place, || {
        let none = |_: &str, _: &str, _: &str| None;
        with_served(server, version, |served| {
            Bytes::from(match &server.options.schemas {
                Some(schemas) => openapi::document(group, name, served, &**schemas),
                None => openapi::document(group, name, served, &none),
            })
        })
    });
    Ok(json_bytes(200, bytes))
}

/// Media types of the protobuf form; old clients ask with an `@`, which is no token, and current ones with a dot.
const OPENAPI_V2_PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

pub(super) fn v2(
    server: &ServerState,
    registry: &Registry,
    parts: &Parts,
) -> Result<ApiResponse, Status> {
    let accept = parts
        .headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let protobuf = OPENAPI_V2_PROTOBUF
        .iter()
        .any(|media| accept.contains(media));
    let accepts_json = accept.is_empty()
        || accept.contains("json")
        || accept.contains("*/*")
        || accept.contains("application/*");
    if !protobuf && !accepts_json {
        return Err(Status::not_acceptable(
            "application/json, application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        ));
    }
    let key = if protobuf { "v2:protobuf" } else { "v2:json" };
    let bytes = document(server, key, || {
        let none = |_: &str, _: &str, _: &str| None;
        let mut document = openapi::v2::Document::default();
        for (group, versions) in &registry.groups {
            for version in versions {
                with_served(server, version, |served| {
                    let group = openapi::v2::Group {
                        group,
                        version: &version.name,
                        served,
                    };
                    match &server.options.schemas {
                        Some(schemas) => document.add(group, &**schemas),
                        None => document.add(group, &none),
                    }
                });
            }
        }
        let document = document.finish();
        Bytes::from(if protobuf {
            openapi::v2::encode(&document)
        } else {
            document.to_string().into_bytes()
        })
    });
    let mut response = json_bytes(200, bytes);
    if protobuf {
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(OPENAPI_V2_PROTOBUF[1]),
        );
    }
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}
