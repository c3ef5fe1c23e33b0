//! What real Knative did with 138 objects: stored, and how; or refused, and why.
//!
//! Under a line `apiVersion Kind` stand its cases: `id: spec`, then `+` the annotations it came with; `=` the spec that was stored,
//! `@` the annotations besides creator and last modifier, `#` the labels; `!` the refusal of the rules, `?` that of the decoder,
//! `&` that of the API server, before or after the webhooks. Where Kinglet differs the line is `~`, and what Kinglet does; the
//! reasons are in `docs/differences.md`. `BIG` stands for five thousand characters.

pub(super) const CASES: &str = r#"
eventing.knative.dev/v1 Trigger
trigger-base: {"broker":"default","subscriber":{"uri":"http://x.y/z"}}
  = {"broker":"default","filter":{},"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}

eventing.knative.dev/v1alpha1 RequestReply
requestreply-base: {"brokerRef":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b"}}
  = {"brokerRef":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b"},"correlationAttribute":"correlationid","replyAttribute":"replyid","timeout":"PT30S"}
  # {"eventing.knative.dev/broker":"b"}

messaging.knative.dev/v1 InMemoryChannel
inmemorychannel-base: {}
  = {}
  @ {"messaging.knative.dev/subscribable":"v1"}

messaging.knative.dev/v1 Subscription
subscription-base: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"}}
  = {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"}}

flows.knative.dev/v1 Parallel
parallel-base: {"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"},"branches":[{"subscriber":{"uri":"http://x.y/z"}}]}
  = {"branches":[{"subscriber":{"uri":"http://x.y/z"}}],"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"}}

sources.knative.dev/v1 PingSource
pingsource-base: {"schedule":"* * * * *","sink":{"uri":"http://x.y/z"}}
  = {"schedule":"* * * * *","sink":{"uri":"http://x.y/z"}}

sources.knative.dev/v1 ApiServerSource
apiserversource-base: {"resources":[{"apiVersion":"v1","kind":"Event"}],"sink":{"uri":"http://x.y/z"}}
  = {"mode":"Reference","resources":[{"apiVersion":"v1","kind":"Event"}],"serviceAccountName":"default","sink":{"uri":"http://x.y/z"}}

sources.knative.dev/v1alpha1 IntegrationSource
integrationsource-base: {"timer":{"period":1000,"message":"x"},"sink":{"uri":"http://x.y/z"}}
  = {"sink":{"uri":"http://x.y/z"},"timer":{"contentType":"text/plain","message":"x","period":1000}}

eventing.knative.dev/v1 Broker
broker-config-noname: {"config":{"apiVersion":"v1","kind":"ConfigMap"}}
  ! missing field(s): spec.config.name
broker-config-nokind: {"config":{"apiVersion":"v1","name":"c"}}
  ! missing field(s): spec.config.kind
broker-delivery-ok: {"delivery":{"retry":3,"backoffPolicy":"exponential","backoffDelay":"PT1S"}}
  = {"config":{"apiVersion":"v1","kind":"ConfigMap","name":"config-br-default-channel","namespace":"knative-eventing"},"delivery":{"backoffDelay":"PT1S","backoffPolicy":"exponential","retry":3}}
  @ {"eventing.knative.dev/broker.class":"MTChannelBasedBroker"}

eventing.knative.dev/v1 Trigger
trigger-delivery-ok: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"delivery":{"retry":3,"backoffPolicy":"exponential","backoffDelay":"PT1S"}}
  = {"broker":"default","delivery":{"backoffDelay":"PT1S","backoffPolicy":"exponential","retry":3},"filter":{},"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}
trigger-delivery-retry-neg: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"delivery":{"retry":-1}}
  ! invalid value: -1: spec.delivery.retry

messaging.knative.dev/v1 Subscription
subscription-delivery-retry-neg: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"retry":-1}}
  ! invalid value: -1: spec.delivery.retry

eventing.knative.dev/v1 Broker
broker-delivery-retry-zero: {"delivery":{"retry":0}}
  = {"config":{"apiVersion":"v1","kind":"ConfigMap","name":"config-br-default-channel","namespace":"knative-eventing"},"delivery":{"retry":0}}
  @ {"eventing.knative.dev/broker.class":"MTChannelBasedBroker"}
broker-delivery-policy-bad: {"delivery":{"backoffPolicy":"sometimes"}}
  ! invalid value: sometimes: spec.delivery.backoffPolicy

messaging.knative.dev/v1 Subscription
subscription-delivery-policy-bad: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"backoffPolicy":"sometimes"}}
  ! invalid value: sometimes: spec.delivery.backoffPolicy

eventing.knative.dev/v1 Trigger
trigger-delivery-delay-bad: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"delivery":{"backoffDelay":"1s"}}
  ! invalid value: 1s: spec.delivery.backoffDelay

messaging.knative.dev/v1 Subscription
subscription-delivery-delay-bad: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"backoffDelay":"1s"}}
  ! invalid value: 1s: spec.delivery.backoffDelay

eventing.knative.dev/v1 Broker
broker-delivery-delay-zero: {"delivery":{"backoffDelay":"PT0S"}}
  = {"config":{"apiVersion":"v1","kind":"ConfigMap","name":"config-br-default-channel","namespace":"knative-eventing"},"delivery":{"backoffDelay":"PT0S"}}
  @ {"eventing.knative.dev/broker.class":"MTChannelBasedBroker"}

eventing.knative.dev/v1 Trigger
trigger-delivery-delay-zero: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"delivery":{"backoffDelay":"PT0S"}}
  = {"broker":"default","delivery":{"backoffDelay":"PT0S"},"filter":{},"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}

messaging.knative.dev/v1 Subscription
subscription-delivery-delay-zero: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"backoffDelay":"PT0S"}}
  = {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"delivery":{"backoffDelay":"PT0S"},"subscriber":{"uri":"http://x.y/z"}}

eventing.knative.dev/v1 Broker
broker-delivery-delay-neg: {"delivery":{"backoffDelay":"-PT1S"}}
  = {"config":{"apiVersion":"v1","kind":"ConfigMap","name":"config-br-default-channel","namespace":"knative-eventing"},"delivery":{"backoffDelay":"-PT1S"}}
  @ {"eventing.knative.dev/broker.class":"MTChannelBasedBroker"}

eventing.knative.dev/v1 Trigger
trigger-delivery-delay-neg: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"delivery":{"backoffDelay":"-PT1S"}}
  = {"broker":"default","delivery":{"backoffDelay":"-PT1S"},"filter":{},"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}

messaging.knative.dev/v1 Subscription
subscription-delivery-delay-neg: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"backoffDelay":"-PT1S"}}
  = {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"delivery":{"backoffDelay":"-PT1S"},"subscriber":{"uri":"http://x.y/z"}}

eventing.knative.dev/v1 Broker
broker-delivery-delay-dot: {"delivery":{"backoffDelay":"PT0.2S"}}
  = {"config":{"apiVersion":"v1","kind":"ConfigMap","name":"config-br-default-channel","namespace":"knative-eventing"},"delivery":{"backoffDelay":"PT0.2S"}}
  @ {"eventing.knative.dev/broker.class":"MTChannelBasedBroker"}

messaging.knative.dev/v1 Subscription
subscription-delivery-delay-dot: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"backoffDelay":"PT0.2S"}}
  = {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"delivery":{"backoffDelay":"PT0.2S"},"subscriber":{"uri":"http://x.y/z"}}

eventing.knative.dev/v1 Trigger
trigger-delivery-delay-day: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"delivery":{"backoffDelay":"P1DT2H"}}
  = {"broker":"default","delivery":{"backoffDelay":"P1DT2H"},"filter":{},"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}

eventing.knative.dev/v1 Broker
broker-delivery-timeout: {"delivery":{"timeout":"PT1S"}}
  = {"config":{"apiVersion":"v1","kind":"ConfigMap","name":"config-br-default-channel","namespace":"knative-eventing"},"delivery":{"timeout":"PT1S"}}
  @ {"eventing.knative.dev/broker.class":"MTChannelBasedBroker"}

eventing.knative.dev/v1 Trigger
trigger-delivery-timeout: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"delivery":{"timeout":"PT1S"}}
  = {"broker":"default","delivery":{"timeout":"PT1S"},"filter":{},"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}

messaging.knative.dev/v1 Subscription
subscription-delivery-timeout: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"timeout":"PT1S"}}
  = {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"delivery":{"timeout":"PT1S"},"subscriber":{"uri":"http://x.y/z"}}
subscription-delivery-timeout-zero: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"timeout":"PT0S"}}
  ! invalid value: PT0S: spec.delivery.timeout
subscription-delivery-timeout-bad: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"timeout":"x"}}
  ! invalid value: x: spec.delivery.timeout
subscription-delivery-retryafter: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"retryAfterMax":"PT1S"}}
  ! must not set the field(s): spec.delivery.retryAfterMax

eventing.knative.dev/v1 Broker
broker-delivery-retryafter-neg: {"delivery":{"retryAfterMax":"-PT1S"}}
  ! must not set the field(s): spec.delivery.retryAfterMax

eventing.knative.dev/v1 Trigger
trigger-delivery-retryafter-neg: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"delivery":{"retryAfterMax":"-PT1S"}}
  ! must not set the field(s): spec.delivery.retryAfterMax

messaging.knative.dev/v1 Subscription
subscription-delivery-retryafter-neg: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"retryAfterMax":"-PT1S"}}
  ! must not set the field(s): spec.delivery.retryAfterMax

eventing.knative.dev/v1 Broker
broker-delivery-dls: {"delivery":{"deadLetterSink":{"ref":{"apiVersion":"v1","kind":"Service","name":"s"}}}}
  = {"config":{"apiVersion":"v1","kind":"ConfigMap","name":"config-br-default-channel","namespace":"knative-eventing"},"delivery":{"deadLetterSink":{"ref":{"apiVersion":"v1","kind":"Service","name":"s","namespace":"corpus"}}}}
  @ {"eventing.knative.dev/broker.class":"MTChannelBasedBroker"}

messaging.knative.dev/v1 Subscription
subscription-delivery-dls: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"deadLetterSink":{"ref":{"apiVersion":"v1","kind":"Service","name":"s"}}}}
  = {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"delivery":{"deadLetterSink":{"ref":{"apiVersion":"v1","kind":"Service","name":"s","namespace":"corpus"}}},"subscriber":{"uri":"http://x.y/z"}}

eventing.knative.dev/v1 Broker
broker-delivery-dls-uri: {"delivery":{"deadLetterSink":{"uri":"http://x.y/z"}}}
  = {"config":{"apiVersion":"v1","kind":"ConfigMap","name":"config-br-default-channel","namespace":"knative-eventing"},"delivery":{"deadLetterSink":{"uri":"http://x.y/z"}}}
  @ {"eventing.knative.dev/broker.class":"MTChannelBasedBroker"}

messaging.knative.dev/v1 Subscription
subscription-delivery-dls-uri: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"deadLetterSink":{"uri":"http://x.y/z"}}}
  = {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"delivery":{"deadLetterSink":{"uri":"http://x.y/z"}},"subscriber":{"uri":"http://x.y/z"}}

eventing.knative.dev/v1 Broker
broker-delivery-dls-rel: {"delivery":{"deadLetterSink":{"uri":"/x"}}}
  ! invalid value: Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent: spec.delivery.deadLetterSink.uri

messaging.knative.dev/v1 Subscription
subscription-delivery-dls-both: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"deadLetterSink":{"ref":{"apiVersion":"v1","kind":"Service","name":"s"},"uri":"http://x.y/z"}}}
  ! Absolute URI is not allowed when Ref or [apiVersion, kind, name] is present: spec.delivery.deadLetterSink.ref, spec.delivery.deadLetterSink.uri, spec.delivery.deadLetterSink[apiVersion, kind, name]

eventing.knative.dev/v1 Broker
broker-delivery-dls-refabs: {"delivery":{"deadLetterSink":{"ref":{"apiVersion":"v1","kind":"Service","name":"s"},"uri":"/path"}}}
  = {"config":{"apiVersion":"v1","kind":"ConfigMap","name":"config-br-default-channel","namespace":"knative-eventing"},"delivery":{"deadLetterSink":{"ref":{"apiVersion":"v1","kind":"Service","name":"s","namespace":"corpus"},"uri":"/path"}}}
  @ {"eventing.knative.dev/broker.class":"MTChannelBasedBroker"}
broker-delivery-dls-empty: {"delivery":{"deadLetterSink":{}}}
  ! expected at least one, got none: spec.delivery.deadLetterSink.ref, spec.delivery.deadLetterSink.uri

eventing.knative.dev/v1 Trigger
trigger-delivery-dls-empty: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"delivery":{"deadLetterSink":{}}}
  ! expected at least one, got none: spec.delivery.deadLetterSink.ref, spec.delivery.deadLetterSink.uri

messaging.knative.dev/v1 Subscription
subscription-delivery-dls-empty: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"deadLetterSink":{}}}
  ! expected at least one, got none: spec.delivery.deadLetterSink.ref, spec.delivery.deadLetterSink.uri

eventing.knative.dev/v1 Trigger
trigger-delivery-dls-noname: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"delivery":{"deadLetterSink":{"ref":{"apiVersion":"v1","kind":"Service"}}}}
  ! missing field(s): spec.delivery.deadLetterSink.ref.name

eventing.knative.dev/v1 Broker
broker-delivery-format: {"delivery":{"format":"json"}}
  = {"config":{"apiVersion":"v1","kind":"ConfigMap","name":"config-br-default-channel","namespace":"knative-eventing"},"delivery":{"format":"json"}}
  @ {"eventing.knative.dev/broker.class":"MTChannelBasedBroker"}

messaging.knative.dev/v1 Subscription
subscription-delivery-format: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"format":"json"}}
  = {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"delivery":{"format":"json"},"subscriber":{"uri":"http://x.y/z"}}

eventing.knative.dev/v1 Broker
broker-delivery-format-bad: {"delivery":{"format":"xml"}}
  ! invalid value: xml: spec.delivery.format

eventing.knative.dev/v1 Trigger
trigger-delivery-format-bad: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"delivery":{"format":"xml"}}
  ! invalid value: xml: spec.delivery.format

messaging.knative.dev/v1 Subscription
subscription-delivery-format-bad: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"uri":"http://x.y/z"},"delivery":{"format":"xml"}}
  ! invalid value: xml: spec.delivery.format

eventing.knative.dev/v1 Broker
broker-delivery-unknown: {"delivery":{"bogus":1}}
  ? cannot decode incoming new object: json: unknown field "bogus"

eventing.knative.dev/v1 Trigger
trigger-nobroker: {"subscriber":{"uri":"http://x.y/z"}}
  ! missing field(s): spec.broker
trigger-emptybroker: {"broker":"","subscriber":{"uri":"http://x.y/z"}}
  ! missing field(s): spec.broker
trigger-brokerref: {"subscriber":{"uri":"http://x.y/z"},"brokerRef":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b","namespace":"o"}}
  ! must not set the field(s): spec.namespace\nonly name, apiVersion and kind are supported fields when feature.CrossNamespaceEventLinks is disabled
trigger-nosub: {"broker":"default"}
  ! expected at least one, got none: spec.subscriber.ref, spec.subscriber.uri
trigger-emptysub: {"broker":"default","subscriber":{}}
  ! expected at least one, got none: spec.subscriber.ref, spec.subscriber.uri
trigger-subref: {"broker":"default","subscriber":{"ref":{"apiVersion":"v1","kind":"Service","name":"s"}}}
  = {"broker":"default","filter":{},"subscriber":{"ref":{"apiVersion":"v1","kind":"Service","name":"s","namespace":"corpus"}}}
  # {"eventing.knative.dev/broker":"default"}
trigger-relative: {"broker":"default","subscriber":{"uri":"/x"}}
  ! invalid value: Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent: spec.subscriber.uri
trigger-cacerts: {"broker":"default","subscriber":{"uri":"http://x.y/z","CACerts":"junk"}}
  ! invalid value: CA Cert provided is invalid: spec.subscriber.caCert
trigger-audience: {"broker":"default","subscriber":{"uri":"http://x.y/z","audience":"me"}}
  = {"broker":"default","filter":{},"subscriber":{"audience":"me","uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}
trigger-filter-dash: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filter":{"attributes":{"a-b":"a"}}}
  ! invalid key name "a-b": spec.filter.attributes[a-b]\nAttribute name must start with a letter and can only contain lowercase alphanumeric
trigger-filter-digit: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filter":{"attributes":{"1a":"a"}}}
  ! invalid key name "1a": spec.filter.attributes[1a]\nAttribute name must start with a letter and can only contain lowercase alphanumeric
trigger-filter-underscore: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filter":{"attributes":{"a_b":"a"}}}
  ! invalid key name "a_b": spec.filter.attributes[a_b]\nAttribute name must start with a letter and can only contain lowercase alphanumeric
trigger-filter-emptyname: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filter":{"attributes":{"":"a"}}}
  ! invalid key name "": spec.filter.attributes[]\nAttribute name must start with a letter and can only contain lowercase alphanumeric
trigger-filter-long: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filter":{"attributes":{"aaaaaaaaaaaaaaaaaaaaa":"b"}}}
  = {"broker":"default","filter":{"attributes":{"aaaaaaaaaaaaaaaaaaaaa":"b"}},"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}
trigger-filters-exact: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filters":[{"exact":{"type":"a"}}]}
  = {"broker":"default","filter":{},"filters":[{"exact":{"type":"a"}}],"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}
trigger-filters-exact-empty: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filters":[{"exact":{}}]}
  = {"broker":"default","filter":{},"filters":[{}],"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}
trigger-filters-exact-upper: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filters":[{"exact":{"Type":"a"}}]}
  ! invalid key name "Type": spec.filters[0].exact[Type]\nAttribute name must start with a letter and can only contain lowercase alphanumeric
trigger-filters-two-keys: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filters":[{"exact":{"type":"a"},"prefix":{"type":"b"}}]}
  ! multiple dialects found, filters can have only one dialect set: 
trigger-filters-empty: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filters":[]}
  = {"broker":"default","filter":{},"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}
trigger-filters-all-empty: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filters":[{"all":[]}]}
  = {"broker":"default","filter":{},"filters":[{}],"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}
trigger-filters-not-empty: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filters":[{"not":{}}]}
  = {"broker":"default","filter":{},"filters":[{"not":{}}],"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}
trigger-filters-exact-two: {"broker":"default","subscriber":{"uri":"http://x.y/z"},"filters":[{"exact":{"type":"a","source":"b"}}]}
  = {"broker":"default","filter":{},"filters":[{"exact":{"source":"b","type":"a"}}],"subscriber":{"uri":"http://x.y/z"}}
  # {"eventing.knative.dev/broker":"default"}
trigger-dependency: {"broker":"default","subscriber":{"uri":"http://x.y/z"}}
  + {"knative.dev/dependency":"{\"kind\":\"PingSource\",\"name\":\"a\",\"apiVersion\":\"sources.knative.dev/v1\"}"}
  = {"broker":"default","filter":{},"subscriber":{"uri":"http://x.y/z"}}
  @ {"knative.dev/dependency":"{\"kind\":\"PingSource\",\"name\":\"a\",\"apiVersion\":\"sources.knative.dev/v1\"}"}
  # {"eventing.knative.dev/broker":"default"}
trigger-injection-bad: {"broker":"default","subscriber":{"uri":"http://x.y/z"}}
  + {"eventing.knative.dev/injection":"x"}
  ! The provided injection annotation value can only be "enabled" or "disabled", not "x": metadata.annotations[eventing.knative.dev/injection]

messaging.knative.dev/v1 Channel
channel-template: {"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"}}
  = {"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"}}
  @ {"messaging.knative.dev/subscribable":"v1"}
channel-template-nokind: {"channelTemplate":{"apiVersion":"messaging.knative.dev/v1"}}
  ! missing field(s): spec.channelTemplate.kind
channel-template-noapi: {"channelTemplate":{"kind":"InMemoryChannel"}}
  ! missing field(s): spec.channelTemplate.apiVersion
channel-subscribers-ok: {"subscribers":[{"uid":"a","subscriberUri":"http://x"}]}
  ! must not set the field(s): spec.subscribable.subscribers

messaging.knative.dev/v1 Subscription
subscription-channel-nochannel: {"subscriber":{"uri":"http://x.y/z"}}
  ! missing field(s): spec.channel\nthe Subscription must reference a channel
subscription-channel-noname: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel"},"subscriber":{"uri":"http://x.y/z"}}
  ! missing field(s): spec.channel.name
subscription-nothing: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"}}
  ! missing field(s): spec.subscriber\nthe Subscription must reference a subscriber
subscription-sub-noname: {"channel":{"apiVersion":"messaging.knative.dev/v1","kind":"Channel","name":"c"},"subscriber":{"ref":{"apiVersion":"v1","kind":"Service"}}}
  ! missing field(s): spec.subscriber.ref.name

flows.knative.dev/v1 Sequence
sequence-missing: {"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"}}
  & Sequence.flows.knative.dev "x" is invalid: spec.steps: Invalid value: "null": spec.steps in body must be of type array: "null"
sequence-badstep: {"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"},"steps":[{}]}
  ~ expected at least one, got none: spec.steps[0].ref, spec.steps[0].uri
sequence-delivery: {"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"},"steps":[{"uri":"http://x.y/z","delivery":{"retry":-2}}]}
  ~ invalid value: -2: spec.steps[0].delivery.retry
sequence-notemplate: {"steps":[{"uri":"http://x.y/z"}]}
  = {"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"},"steps":[{"uri":"http://x.y/z"}]}
sequence-reply: {"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"},"steps":[{"uri":"http://x.y/z"}],"reply":{"uri":"/r"}}
  ! invalid value: Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent: spec.reply.uri
sequence-template-bad: {"channelTemplate":{"kind":"InMemoryChannel"},"steps":[{"uri":"http://x.y/z"}]}
  ! missing field(s): spec.channelTemplate.apiVersion

flows.knative.dev/v1 Parallel
parallel-nobranches: {"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"},"branches":[]}
  ! missing field(s): spec.branches
parallel-nosub: {"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"},"branches":[{"filter":{"uri":"http://x.y/z"}}]}
  ~ expected at least one, got none: spec.branches[0].subscriber.ref, spec.branches[0].subscriber.uri
parallel-badfilter: {"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"},"branches":[{"filter":{},"subscriber":{"uri":"http://x.y/z"}}]}
  ~ expected at least one, got none: spec.branches[0].filter.ref, spec.branches[0].filter.uri
parallel-notemplate: {"branches":[{"subscriber":{"uri":"http://x.y/z"}}]}
  = {"branches":[{"subscriber":{"uri":"http://x.y/z"}}],"channelTemplate":{"apiVersion":"messaging.knative.dev/v1","kind":"InMemoryChannel"}}

sources.knative.dev/v1 PingSource
pingsource-schedule-bad: {"schedule":"x","sink":{"uri":"http://x.y/z"}}
  ! invalid value: expected 5 to 6 fields, found 1: [x]: spec.schedule
pingsource-schedule-at: {"schedule":"@hourly","sink":{"uri":"http://x.y/z"}}
  = {"schedule":"@hourly","sink":{"uri":"http://x.y/z"}}
pingsource-schedule-every: {"schedule":"@every 5m","sink":{"uri":"http://x.y/z"}}
  ! invalid value: unsupported descriptor @every: spec.schedule
pingsource-schedule-tz: {"schedule":"CRON_TZ=UTC * * * * *","sink":{"uri":"http://x.y/z"}}
  = {"schedule":"CRON_TZ=UTC * * * * *","sink":{"uri":"http://x.y/z"}}
pingsource-schedule-range: {"schedule":"61 * * * *","sink":{"uri":"http://x.y/z"}}
  ! invalid value: end of range (61) above maximum (59): 61: spec.schedule
pingsource-schedule-empty: {"schedule":"","sink":{"uri":"http://x.y/z"}}
  = {"schedule":"* * * * *","sink":{"uri":"http://x.y/z"}}
pingsource-schedule-names: {"schedule":"0 0 * JAN MON","sink":{"uri":"http://x.y/z"}}
  = {"schedule":"0 0 * JAN MON","sink":{"uri":"http://x.y/z"}}
pingsource-tz-ok: {"schedule":"* * * * *","sink":{"uri":"http://x.y/z"},"timezone":"Europe/Rome"}
  ~ accepted
pingsource-tz-bad: {"schedule":"* * * * *","sink":{"uri":"http://x.y/z"},"timezone":"Mars/Base"}
  ! invalid value: provided bad location Mars/Base: unknown time zone Mars/Base: spec.timezone
pingsource-tz-empty: {"schedule":"* * * * *","sink":{"uri":"http://x.y/z"},"timezone":""}
  = {"schedule":"* * * * *","sink":{"uri":"http://x.y/z"}}
pingsource-ceover: {"schedule":"* * * * *","sink":{"uri":"http://x.y/z"},"ceOverrides":{"extensions":{"Bad-Name":"x"}}}
  ! invalid key name "Bad-Name": spec.ceOverrides.extensions\nkeys are expected to be alphanumeric
pingsource-ceover-ok: {"schedule":"* * * * *","sink":{"uri":"http://x.y/z"},"ceOverrides":{"extensions":{"good":"x"}}}
  = {"ceOverrides":{"extensions":{"good":"x"}},"schedule":"* * * * *","sink":{"uri":"http://x.y/z"}}
pingsource-big: {"schedule":"* * * * *","sink":{"uri":"http://x.y/z"},"data":"BIG"}
  = {"data":"BIG","schedule":"* * * * *","sink":{"uri":"http://x.y/z"}}

sources.knative.dev/v1 ApiServerSource
apiserversource-nokind: {"resources":[{"apiVersion":"v1"}],"sink":{"uri":"http://x.y/z"}}
  ! missing field(s): spec.resources[0].kind
apiserversource-badapi: {"resources":[{"apiVersion":"a/b/c","kind":"Event"}],"sink":{"uri":"http://x.y/z"}}
  ! invalid value: a/b/c: spec.resources[0].apiVersion
apiserversource-mode: {"resources":[{"apiVersion":"v1","kind":"Event"}],"sink":{"uri":"http://x.y/z"},"mode":"Resource"}
  = {"mode":"Resource","resources":[{"apiVersion":"v1","kind":"Event"}],"serviceAccountName":"default","sink":{"uri":"http://x.y/z"}}
apiserversource-mode-bad: {"resources":[{"apiVersion":"v1","kind":"Event"}],"sink":{"uri":"http://x.y/z"},"mode":"All"}
  ! invalid value: All: spec.mode
apiserversource-owner: {"resources":[{"apiVersion":"v1","kind":"Event"}],"sink":{"uri":"http://x.y/z"},"owner":{"apiVersion":"v1","kind":"Pod"}}
  = {"mode":"Reference","owner":{"apiVersion":"v1","kind":"Pod"},"resources":[{"apiVersion":"v1","kind":"Event"}],"serviceAccountName":"default","sink":{"uri":"http://x.y/z"}}
apiserversource-owner-bad: {"resources":[{"apiVersion":"v1","kind":"Event"}],"sink":{"uri":"http://x.y/z"},"owner":{"apiVersion":"v1"}}
  ! missing field(s): spec.owner.kind
apiserversource-filters: {"resources":[{"apiVersion":"v1","kind":"Event"}],"sink":{"uri":"http://x.y/z"},"filters":[{"exact":{"Type":"a"}}]}
  ! Filters is not empty but the NewAPIServerFilters feature is disabled.: 

sources.knative.dev/v1 ContainerSource
containersource-nocontainers: {"template":{"spec":{"containers":[]}},"sink":{"uri":"http://x.y/z"}}
  ! missing field(s): spec.containers
containersource-noimage: {"template":{"spec":{"containers":[{"name":"c"}]}},"sink":{"uri":"http://x.y/z"}}
  ! missing field(s): spec.containers[0].image

sources.knative.dev/v1 SinkBinding
sinkbinding-both: {"subject":{"apiVersion":"apps/v1","kind":"Deployment","name":"d","selector":{"matchLabels":{"a":"b"}}},"sink":{"uri":"http://x.y/z"}}
  ! expected exactly one, got both: spec.subject.name, spec.subject.selector
sinkbinding-neither: {"subject":{"apiVersion":"apps/v1","kind":"Deployment"},"sink":{"uri":"http://x.y/z"}}
  ! expected exactly one, got neither: spec.subject.name, spec.subject.selector
sinkbinding-otherns: {"subject":{"apiVersion":"apps/v1","kind":"Deployment","name":"d","namespace":"o"},"sink":{"uri":"http://x.y/z"}}
  ! invalid value: o: spec.subject.namespace
sinkbinding-nosink: {"subject":{"apiVersion":"apps/v1","kind":"Deployment","name":"d"}}
  ! expected at least one, got none: spec.sink.ref, spec.sink.uri

eventing.knative.dev/v1beta3 EventType
eventtype-noattr: {"attributes":[],"reference":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"default"}}
  ! missing field(s): spec.type
eventtype-notype: {"attributes":[{"name":"source","required":true,"value":"b"}],"reference":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"default"}}
  ! missing field(s): spec.type
eventtype-noref: {"attributes":[{"name":"type","required":true,"value":"a"},{"name":"source","required":true,"value":"b"},{"name":"specversion","required":true,"value":"1.0"},{"name":"id","required":true}]}
  = {"attributes":[{"name":"specversion","required":true},{"name":"id","required":true},{"name":"type","required":true,"value":"a"},{"name":"source","required":true,"value":"b"}]}

eventing.knative.dev/v1alpha1 EventPolicy
eventpolicy-nofrom: {"to":[{"ref":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b"}}]}
  ! oidc-authentication feature not enabled: 
eventpolicy-wild: {"to":[{"ref":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b"}}],"from":[{"sub":"a*b"}]}
  ! oidc-authentication feature not enabled: 
eventpolicy-wild-ok: {"to":[{"ref":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b"}}],"from":[{"sub":"a*"}]}
  ! oidc-authentication feature not enabled: 
eventpolicy-noto: {"from":[{"sub":"a"}]}
  ! oidc-authentication feature not enabled: 

eventing.knative.dev/v1alpha1 RequestReply
requestreply-timeout: {"brokerRef":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b"},"timeout":"PT1M"}
  = {"brokerRef":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b"},"correlationAttribute":"correlationid","replyAttribute":"replyid","timeout":"PT1M"}
  # {"eventing.knative.dev/broker":"b"}
requestreply-attrs: {"brokerRef":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b"},"correlationAttribute":"a","replyAttribute":"a"}
  = {"brokerRef":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b"},"correlationAttribute":"a","replyAttribute":"a","timeout":"PT30S"}
  # {"eventing.knative.dev/broker":"b"}
requestreply-secrets: {"brokerRef":{"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b"},"secrets":["a"]}
  & RequestReply in version "v1alpha1" cannot be handled as a RequestReply: strict decoding error: unknown field "spec.secrets"

eventing.knative.dev/v1alpha1 EventTransform
eventtransform-none: {}
  ! expected exactly one, got neither: spec.jsonata
eventtransform-reply: {"jsonata":{"expression":"$"},"reply":{"jsonata":{"expression":"$"}}}
  ! reply is set without spec.sink: spec.reply
eventtransform-reply-both: {"jsonata":{"expression":"$"},"sink":{"uri":"http://x.y/z"},"reply":{"jsonata":{"expression":"$"},"discard":true}}
  ! expected exactly one, got both: spec.reply.discard, spec.reply.jsonata
eventtransform-empty: {"jsonata":{"expression":""}}
  = {"jsonata":{}}

sinks.knative.dev/v1alpha1 JobSink
jobsink-both: {"job":{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"x"}]}}}},"executionMode":"x"}
  & JobSink in version "v1alpha1" cannot be handled as a JobSink: strict decoding error: unknown field "spec.executionMode"

sources.knative.dev/v1alpha1 IntegrationSource
integrationsource-none: {"sink":{"uri":"http://x.y/z"}}
  ! at least one source type must be specified: spec.spec
"#;

use serde_json::{Map, Value, json};

use super::{REFUSED, UNREADABLE, admit, request};
use crate::config::eventing::EventingConfigs;
use crate::{eventing, flows, manifests, messaging, sources};

/// One recorded case.
#[derive(Default)]
struct Case<'a> {
    api_version: &'a str,
    kind: &'a str,
    id: &'a str,
    spec: Value,
    came_with: Value,
    want: Vec<(char, &'a str)>,
}

fn cases() -> Vec<Case<'static>> {
    let mut cases: Vec<Case<'static>> = Vec::new();
    let (mut api_version, mut kind) = ("", "");
    for line in CASES.lines().filter(|line| !line.is_empty()) {
        if let Some(line) = line.strip_prefix("  ") {
            let case = cases.last_mut().unwrap();
            let (mark, text) = (line.chars().next().unwrap(), &line[2..]);
            if mark == '+' {
                case.came_with = serde_json::from_str(text).unwrap();
            } else {
                case.want.push((mark, text));
            }
        } else if let Some((id, spec)) = line.split_once(": ") {
            cases.push(Case {
                api_version,
                kind,
                id,
                spec: json(spec),
                ..Case::default()
            });
        } else {
            (api_version, kind) = line.split_once(' ').unwrap();
        }
    }
    cases
}

fn json(text: &str) -> Value {
    let big = format!("\\\"{}\\\"", "x".repeat(5000));
    serde_json::from_str(&text.replace("BIG", &big)).unwrap()
}

#[test]
fn what_was_recorded_is_what_happens() {
    let cases = cases();
    assert_eq!(cases.len(), 138);
    let mut wrong = Vec::new();
    for case in cases {
        if let Err(why) = check(&case) {
            wrong.push(format!("{}: {why}", case.id));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(case: &Case<'_>) -> Result<(), String> {
    let mut object = json!({"metadata": {"name": "x"}, "spec": case.spec});
    if !case.came_with.is_null() {
        object["metadata"]["annotations"] = case.came_with.clone();
    }
    let review = request(case.api_version, case.kind);
    let answer = admit(&review, &object, &EventingConfigs::default());
    let (mark, text) = case.want[0];
    match mark {
        '=' => {
            let stored = answer?;
            same(&stored, case)?;
            let typed = through_its_type(case, &stored)?;
            if typed["spec"] == stored["spec"] {
                return Ok(());
            }
            Err(format!("its type writes {}", typed["spec"]))
        }
        '~' if text == "accepted" => answer.map(drop),
        '!' | '~' => refused(answer, &format!("{REFUSED}{}", text.replace("\\n", "\n"))),
        '?' => refused(answer, &format!("{UNREADABLE}{text}")),
        // The API server's own: a field that the schema does not have, or a list that is null once the defaults are there.
        '&' if text.contains("unknown field") => unknown(case, text),
        _ => refused(answer, &format!("{REFUSED}missing field(s): spec.steps")),
    }
}

/// The object read into the type of its kind, and written back.
fn through_its_type(case: &Case<'_>, stored: &Value) -> Result<Value, String> {
    fn back<T: serde::de::DeserializeOwned + serde::Serialize>(
        object: &Value,
    ) -> Result<Value, String> {
        let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
        serde_json::to_value(typed).map_err(|error| error.to_string())
    }
    match case.kind {
        "Broker" => back::<eventing::Broker>(stored),
        "Trigger" => back::<eventing::Trigger>(stored),
        "EventType" => back::<eventing::EventType>(stored),
        "RequestReply" => back::<eventing::RequestReply>(stored),
        "EventTransform" => back::<eventing::EventTransform>(stored),
        "Channel" => back::<messaging::Channel>(stored),
        "Subscription" => back::<messaging::Subscription>(stored),
        "InMemoryChannel" => back::<messaging::InMemoryChannel>(stored),
        "Sequence" => back::<flows::Sequence>(stored),
        "Parallel" => back::<flows::Parallel>(stored),
        "PingSource" => back::<sources::PingSource>(stored),
        "ApiServerSource" => back::<sources::ApiServerSource>(stored),
        "IntegrationSource" => back::<sources::IntegrationSource>(stored),
        other => Err(format!("no type is looked at for {other}")),
    }
}

fn refused(answer: Result<Value, String>, want: &str) -> Result<(), String> {
    match answer {
        Ok(stored) => Err(format!("stored as {stored}, and not refused: {want}")),
        Err(got) if got == want => Ok(()),
        Err(got) => Err(format!("\n    want {want}\n    got  {got}")),
    }
}

fn same(stored: &Value, case: &Case<'_>) -> Result<(), String> {
    let group = case.api_version.split('/').next().unwrap_or_default();
    let mut annotations = Map::new();
    for who in ["creator", "lastModifier"] {
        annotations.insert(format!("{group}/{who}"), json!("admin"));
    }
    let mut labels = Value::Null;
    let mut spec = Value::Null;
    for (mark, text) in &case.want {
        match mark {
            '=' => spec = json(text),
            '@' => annotations.extend(json(text).as_object().cloned().unwrap_or_default()),
            '#' => labels = json(text),
            _ => return Err(format!("a mark that is not known: {mark}")),
        }
    }
    let metadata = &stored["metadata"];
    for (want, got) in [
        (&spec, &stored["spec"]),
        (&Value::Object(annotations), &metadata["annotations"]),
        (&labels, &metadata["labels"]),
    ] {
        if want != got {
            return Err(format!("\n    want {want}\n    got  {got}"));
        }
    }
    Ok(())
}

/// The schema of the CRD lets through what was recorded as known, and not the field that was recorded as unknown.
fn unknown(case: &Case<'_>, text: &str) -> Result<(), String> {
    let field = text
        .trim_end_matches('"')
        .rsplit('.')
        .next()
        .unwrap_or_default();
    let crds = manifests::parsed_eventing_crds();
    let crd = crds
        .iter()
        .find(|crd| crd["spec"]["names"]["kind"] == case.kind)
        .ok_or("no CRD")?;
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let kept = spec["x-kubernetes-preserve-unknown-fields"] == true;
    if kept || spec["properties"].get(field).is_some() {
        return Err(format!("the schema has {field}"));
    }
    Ok(())
}
