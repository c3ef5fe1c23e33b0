//! What form of answer the client can read.

use http::{HeaderMap, header};

use crate::status::Status;

/// The form of an answer to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object as it is.
    Plain,
    /// Rows and columns; the version of meta.k8s.io.
    Table(&'static str),
    /// Only metadata.
    Partial(&'static str),
    /// Only metadata, of a list.
    PartialList(&'static str),
    /// Discovery of all groups at once.
    Discovery(&'static str),
}

const ACCEPTED: &str = "application/json";

/// The first form in the client's order that we can give.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form, Status> {
    let Some(accept) = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
    else {
        return Ok(Form::Plain);
    };
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or("");
        if !matches!(media, "" | "application/json" | "*/*" | "application/*") {
            continue;
        }
        let (mut form, mut version, mut group) = ("", "", "");
        for part in parts {
            match part.split_once('=') {
                Some(("as", value)) => form = value,
                Some(("v", value)) => version = value,
                Some(("g", value)) => group = value,
                _ => {}
            }
        }
        let meta = match version {
            "v1" => "v1",
            "v1beta1" => "v1beta1",
            _ => "",
        };
        match (form, group) {
            ("", _) => return Ok(Form::Plain),
            ("Table", "meta.k8s.io") if !meta.is_empty() => return Ok(Form::Table(meta)),
            ("PartialObjectMetadata", "meta.k8s.io") if !meta.is_empty() => {
                return Ok(Form::Partial(meta));
            }
            ("PartialObjectMetadataList", "meta.k8s.io") if !meta.is_empty() => {
                return Ok(Form::PartialList(meta));
            }
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io") => match version {
                "v2" => return Ok(Form::Discovery("v2")),
                "v2beta1" => return Ok(Form::Discovery("v2beta1")),
                _ => {}
            },
            _ => {}
        }
    }
    Err(Status::not_acceptable(ACCEPTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_gets_its_table() {
        let form = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            form(&headers)
        };
        let get = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(get).unwrap(), Form::Table("v1"));
        assert_eq!(
            form("application/vnd.kubernetes.protobuf,application/json").unwrap(),
            Form::Plain
        );
        assert_eq!(form("*/*").unwrap(), Form::Plain);
        assert_eq!(
            form("application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json").unwrap(),
            Form::PartialList("v1")
        );
        assert_eq!(
            form("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json").unwrap(),
            Form::Discovery("v2")
        );
        assert_eq!(
            form("application/vnd.kubernetes.protobuf")
                .unwrap_err()
                .code,
            406
        );
    }
}
