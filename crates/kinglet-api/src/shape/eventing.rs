//! The structs of Eventing's specs, in the notation of [`super::catalogue`].

pub(super) const STRUCTS: &str = r"
KReference: kind! string, namespace string, name string, apiVersion string, group string, address *string
Destination: ref *KReference, uri string, CACerts *string, audience *string
DeliverySpec: deadLetterSink *Destination, retry *int32, timeout *string, backoffPolicy *string, backoffDelay *string, retryAfterMax *string, format *string
SourceSpec: sink Destination, ceOverrides *CloudEventOverrides
CloudEventOverrides: extensions map string
LabelSelector: matchLabels map string, matchExpressions []LabelSelectorRequirement
LabelSelectorRequirement: key! string, operator! string, values []string
SubscriptionsAPIFilter: all []SubscriptionsAPIFilter, any []SubscriptionsAPIFilter, not *SubscriptionsAPIFilter, exact map string, prefix map string, suffix map string, cesql string
PodTemplateSpec: metadata ObjectMeta, spec PodSpec
BrokerSpec: config *KReference, delivery *DeliverySpec
TriggerSpec: broker string, brokerRef *KReference, filter *TriggerFilter, filters []SubscriptionsAPIFilter, subscriber Destination, delivery *DeliverySpec
TriggerFilter: attributes map string
EventTypeSpec: type! string, source string, schema string, schemaData string, broker string, reference *KReference, description string
EventTypeSpecV1Beta3: reference *KReference, description string, attributes []EventAttributeDefinition
EventAttributeDefinition: name! string, required! bool, value string
EventPolicySpec: to []EventPolicySpecTo, from []EventPolicySpecFrom, filters []SubscriptionsAPIFilter
EventPolicySpecTo: ref *EventPolicyToReference, selector *EventPolicySelector
EventPolicyToReference: apiVersion string, kind string, name string
EventPolicySelector: +LabelSelector, apiVersion string, kind string
EventPolicySpecFrom: ref *EventPolicyFromReference, sub *string
EventPolicyFromReference: apiVersion string, kind string, name string, namespace string
RequestReplySpec: brokerRef KReference, correlationAttribute string, replyAttribute string, timeout *string, delivery *DeliverySpec
EventTransformSpec: sink *Destination, reply *ReplySpec, jsonata *JsonataEventTransformationSpec
ReplySpec: jsonata *JsonataEventTransformationSpec, discard *bool
JsonataEventTransformationSpec: expression string
SubscriberSpec: name *string, uid string, generation int64, subscriberUri string, subscriberCACerts *string, subscriberAudience *string, replyUri string, replyCACerts *string, replyAudience *string, delivery *DeliverySpec, auth *AuthStatus
AuthStatus: serviceAccountName *string, serviceAccountNames []string
ChannelableSpec: subscribers []SubscriberSpec, delivery *DeliverySpec
ChannelTemplateSpec: kind string, apiVersion string, spec *any
ChannelSpec: channelTemplate *ChannelTemplateSpec, +ChannelableSpec
InMemoryChannelSpec: +ChannelableSpec
DurableChannelSpec: +ChannelableSpec, retention *Retention
Retention: age *string, size *quantity, whenFull *string
SubscriptionSpec: channel KReference, subscriber *Destination, reply *Destination, delivery *DeliverySpec
SequenceSpec: steps! []SequenceStep, channelTemplate *ChannelTemplateSpec, reply *Destination
SequenceStep: +Destination, delivery *DeliverySpec
ParallelSpec: branches! []ParallelBranch, channelTemplate *ChannelTemplateSpec, reply *Destination
ParallelBranch: filter *Destination, subscriber Destination, reply *Destination, delivery *DeliverySpec
PingSourceSpec: +SourceSpec, schedule string, timezone string, contentType string, data string, dataBase64 string
ApiServerSourceSpec: +SourceSpec, resources []APIVersionKindSelector, owner *APIVersionKind, mode string, serviceAccountName string, namespaceSelector *LabelSelector, filters []SubscriptionsAPIFilter
APIVersionKindSelector: apiVersion! string, kind! string, selector *LabelSelector
APIVersionKind: apiVersion! string, kind! string
ContainerSourceSpec: +SourceSpec, template PodTemplateSpec
SinkBindingSpec: +SourceSpec, subject Reference
Reference: apiVersion string, kind string, namespace string, name string, selector *LabelSelector
IntegrationSourceSpec: +SourceSpec, template *PodTemplateSpec, aws *AwsSource, timer *Timer
Timer: period! int64, message! string, contentType! string, repeatCount int64
AwsSource: s3 *any, sqs *any, ddbStreams *any, auth *any
AwsSink: s3 *any, sqs *any, sns *any, auth *any
IntegrationSinkSpec: aws *AwsSink, log *Log
Log: loggerName string, level string, logMask *bool, marker string, multiline *bool, showAllProperties *bool, showBody *bool, showBodyType *bool, showExchangePattern *bool, showHeaders *bool, showProperties *bool, showStreams *bool, showCachedStreams *bool
JobSinkSpec: job *Job
Job: kind string, apiVersion string, metadata ObjectMeta, spec JobSpec, status JobStatus
JobSpec: parallelism *int32, completions *int32, activeDeadlineSeconds *int64, podFailurePolicy *any, successPolicy *any, backoffLimit *int32, backoffLimitPerIndex *int32, maxFailedIndexes *int32, selector *LabelSelector, manualSelector *bool, template PodTemplateSpec, ttlSecondsAfterFinished *int32, completionMode *string, suspend *bool, podReplacementPolicy *string, managedBy *string
JobStatus: conditions []any, startTime *any, completionTime *any, active int32, succeeded int32, failed int32, terminating *int32, completedIndexes string, failedIndexes *string, uncountedTerminatedPods *any, ready *int32
";
