//! Properties of any input.

use super::*;

proptest::proptest! {
    /// Whatever JSON comes in, admission answers; what it stores it stores again unchanged.
    #[test]
    fn any_input_is_answered(pod in any_json()) {
        let mut object = with_pod(&pod);
        let request = create("serving.knative.dev", "Service", "ns", "svc");
        if mutate(&request, &mut object, &Configs::default()).is_ok() {
            let once = object.clone();
            let _verdict = validate(&request, &object, &Configs::default());
            mutate(&request, &mut object, &Configs::default()).unwrap();
            proptest::prop_assert_eq!(object, once);
        }
    }
}

fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    const FIELDS: [&str; 22] = [
        "containers",
        "initContainers",
        "name",
        "image",
        "env",
        "value",
        "valueFrom",
        "ports",
        "containerPort",
        "volumes",
        "volumeMounts",
        "readinessProbe",
        "httpGet",
        "tcpSocket",
        "port",
        "resources",
        "limits",
        "cpu",
        "securityContext",
        "secret",
        "emptyDir",
        "periodSeconds",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..100_000).prop_map(Value::from),
        proptest::sample::select(vec!["", "a", "100m", "/x", "1.5Gi", "é"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map(proptest::sample::select(FIELDS.to_vec()), inner, 0..5)
                .prop_map(|map| Value::Object(
                    map.into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect()
                )),
        ]
    })
}
