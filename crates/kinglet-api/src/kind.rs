//! One macro that makes a top-level Kubernetes kind out of a spec and a status type.

/// Declares `struct $name { metadata, spec, status }`, its JSON form with `apiVersion` and `kind`, and
/// [`kube::Resource`]. An empty status is left out, as Kubernetes keeps it on creation.
macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $plural:literal, $group:expr, $version:expr, $spec:ty, $status:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            /// Standard object metadata.
            pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            /// What is wanted.
            pub spec: $spec,
            /// What was observed.
            pub status: $status,
        }

        impl $name {
            /// `metadata.name`, or the empty string while it has none.
            pub fn name(&self) -> &str {
                self.metadata.name.as_deref().unwrap_or_default()
            }

            /// `metadata.namespace`, or the empty string.
            pub fn namespace(&self) -> &str {
                self.metadata.namespace.as_deref().unwrap_or_default()
            }

            /// `metadata.generation`, 0 while unset.
            pub fn generation(&self) -> i64 {
                self.metadata.generation.unwrap_or_default()
            }

            /// A label's value.
            pub fn label(&self, key: &str) -> Option<&str> {
                self.metadata.labels.as_ref()?.get(key).map(String::as_str)
            }

            /// An annotation's value.
            pub fn annotation(&self, key: &str) -> Option<&str> {
                self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct as _;
                let with_status = self.status != <$status>::default();
                let mut out = serializer.serialize_struct(stringify!($name), 4 + usize::from(with_status))?;
                out.serialize_field("apiVersion", concat!($group, "/", $version))?;
                out.serialize_field("kind", stringify!($name))?;
                out.serialize_field("metadata", &self.metadata)?;
                out.serialize_field("spec", &self.spec)?;
                if with_status {
                    out.serialize_field("status", &self.status)?;
                }
                out.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                struct Parts {
                    #[serde(default)]
                    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
                    #[serde(default)]
                    spec: $spec,
                    #[serde(default)]
                    status: $status,
                }
                let Parts { metadata, spec, status } = Parts::deserialize(deserializer)?;
                Ok(Self { metadata, spec, status })
            }
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = kube::core::NamespaceResourceScope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                stringify!($name).into()
            }
            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }
            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }
            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

/// Skips a field whose value is its type's default (Go's `omitempty`).
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(crate) use kind;
