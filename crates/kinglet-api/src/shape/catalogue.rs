//! The structs that specs are made of. One per line: `Name: field Type, field! Type, +Embedded`.
//!
//! `!` is written even if empty, `*` is a pointer, `[]` a list, `map ` a map from strings.

pub(super) const STRUCTS: &str = r"
ServiceSpec: +ConfigurationSpec, +RouteSpec
ConfigurationSpec: template RevisionTemplateSpec
RouteSpec: traffic []TrafficTarget
TrafficTarget: tag string, revisionName string, configurationName string, latestRevision *bool, percent *int64, url *string
RevisionTemplateSpec: metadata ObjectMeta, spec RevisionSpec
RevisionSpec: +PodSpec, containerConcurrency *int64, timeoutSeconds *int64, responseStartTimeoutSeconds *int64, idleTimeoutSeconds *int64
ObjectMeta: name string, generateName string, namespace string, selfLink string, uid string, resourceVersion string, generation int64, deletionGracePeriodSeconds *int64, labels map string, annotations map string, ownerReferences []any, finalizers []string, managedFields []any
PodSpec: volumes []Volume, initContainers []Container, containers! []Container, ephemeralContainers []any, restartPolicy string, terminationGracePeriodSeconds *int64, activeDeadlineSeconds *int64, dnsPolicy string, nodeSelector map string, serviceAccountName string, serviceAccount string, automountServiceAccountToken *bool, nodeName string, hostNetwork bool, hostPID bool, hostIPC bool, shareProcessNamespace *bool, securityContext *PodSecurityContext, imagePullSecrets []LocalObjectReference, hostname string, subdomain string, affinity *any, schedulerName string, tolerations []any, hostAliases []any, priorityClassName string, priority *int32, dnsConfig *any, readinessGates []any, runtimeClassName *string, enableServiceLinks *bool, preemptionPolicy *string, overhead map quantity, topologySpreadConstraints []any, setHostnameAsFQDN *bool, os *any, hostUsers *bool, schedulingGates []any, resourceClaims []any
Container: name! string, image string, command []string, args []string, workingDir string, ports []ContainerPort, envFrom []EnvFromSource, env []EnvVar, resources ResourceRequirements, resizePolicy []any, restartPolicy *string, volumeMounts []VolumeMount, volumeDevices []any, livenessProbe *Probe, readinessProbe *Probe, startupProbe *Probe, lifecycle *any, terminationMessagePath string, terminationMessagePolicy string, imagePullPolicy string, securityContext *SecurityContext, stdin bool, stdinOnce bool, tty bool
ContainerPort: name string, hostPort int32, containerPort! int32, protocol string, hostIP string
EnvFromSource: prefix string, configMapRef *ConfigMapEnvSource, secretRef *SecretEnvSource
ConfigMapEnvSource: +LocalObjectReference, optional *bool
SecretEnvSource: +LocalObjectReference, optional *bool
LocalObjectReference: name! string
EnvVar: name! string, value string, valueFrom *EnvVarSource
EnvVarSource: fieldRef *ObjectFieldSelector, resourceFieldRef *ResourceFieldSelector, configMapKeyRef *ConfigMapKeySelector, secretKeyRef *SecretKeySelector, fileKeyRef *any
ObjectFieldSelector: apiVersion string, fieldPath! string
ResourceFieldSelector: containerName string, resource! string, divisor *quantity
ConfigMapKeySelector: +LocalObjectReference, key! string, optional *bool
SecretKeySelector: +LocalObjectReference, key! string, optional *bool
ResourceRequirements: limits map quantity, requests map quantity, claims []any
VolumeMount: name! string, readOnly bool, recursiveReadOnly *string, mountPath! string, subPath string, mountPropagation *string, subPathExpr string
Probe: +ProbeHandler, initialDelaySeconds int32, timeoutSeconds int32, periodSeconds int32, successThreshold int32, failureThreshold int32, terminationGracePeriodSeconds *int64
ProbeHandler: exec *ExecAction, httpGet *HTTPGetAction, tcpSocket *TCPSocketAction, grpc *GRPCAction
ExecAction: command []string
HTTPGetAction: path string, port! intstr, host string, scheme string, httpHeaders []HTTPHeader
HTTPHeader: name! string, value! string
TCPSocketAction: port! intstr, host string
GRPCAction: port! int32, service! *string
SecurityContext: capabilities *Capabilities, privileged *bool, seLinuxOptions *any, windowsOptions *any, runAsUser *int64, runAsGroup *int64, runAsNonRoot *bool, readOnlyRootFilesystem *bool, allowPrivilegeEscalation *bool, procMount *string, seccompProfile *SeccompProfile, appArmorProfile *any
Capabilities: add []string, drop []string
SeccompProfile: type! string, localhostProfile *string
PodSecurityContext: seLinuxOptions *any, windowsOptions *any, runAsUser *int64, runAsGroup *int64, runAsNonRoot *bool, supplementalGroups []int64, supplementalGroupsPolicy *string, fsGroup *int64, sysctls []any, fsGroupChangePolicy *string, seccompProfile *SeccompProfile, appArmorProfile *any, seLinuxChangePolicy *string
Volume: name! string, +VolumeSource
VolumeSource: hostPath *HostPathVolumeSource, emptyDir *EmptyDirVolumeSource, secret *SecretVolumeSource, configMap *ConfigMapVolumeSource, projected *ProjectedVolumeSource, persistentVolumeClaim *PersistentVolumeClaimVolumeSource, csi *any, ephemeral *any, image *ImageVolumeSource, nfs *any, downwardAPI *any, iscsi *any, glusterfs *any, rbd *any, flexVolume *any, cinder *any, cephfs *any, fc *any, azureFile *any, azureDisk *any, awsElasticBlockStore *any, gcePersistentDisk *any, gitRepo *any, portworxVolume *any, quobyte *any, scaleIO *any, storageos *any, vsphereVolume *any, photonPersistentDisk *any, flocker *any
HostPathVolumeSource: path! string, type *string
EmptyDirVolumeSource: medium string, sizeLimit *quantity
SecretVolumeSource: secretName string, items []KeyToPath, defaultMode *int32, optional *bool
ConfigMapVolumeSource: +LocalObjectReference, items []KeyToPath, defaultMode *int32, optional *bool
KeyToPath: key! string, path! string, mode *int32
ProjectedVolumeSource: sources! []VolumeProjection, defaultMode *int32
VolumeProjection: secret *SecretProjection, downwardAPI *DownwardAPIProjection, configMap *ConfigMapProjection, serviceAccountToken *ServiceAccountTokenProjection, clusterTrustBundle *any, podCertificate *any
SecretProjection: +LocalObjectReference, items []KeyToPath, optional *bool
ConfigMapProjection: +LocalObjectReference, items []KeyToPath, optional *bool
DownwardAPIProjection: items []DownwardAPIVolumeFile
DownwardAPIVolumeFile: path! string, fieldRef *ObjectFieldSelector, resourceFieldRef *ResourceFieldSelector, mode *int32
ServiceAccountTokenProjection: audience string, expirationSeconds *int64, path! string
PersistentVolumeClaimVolumeSource: claimName! string, readOnly bool
ImageVolumeSource: reference string, pullPolicy string
PodAutoscalerSpec: containerConcurrency int64, scaleTargetRef ObjectReference, reachability string, protocolType! string
ObjectReference: kind string, namespace string, name string, uid string, apiVersion string, resourceVersion string, fieldPath string
MetricSpec: stableWindow! int64, panicWindow! int64, scrapeTarget! string
IngressSpec: httpOption string, tls []IngressTLS, rules []IngressRule
IngressTLS: hosts []string, secretName string, secretNamespace string
IngressRule: hosts []string, visibility string, http *HTTPIngressRuleValue
HTTPIngressRuleValue: paths! []HTTPIngressPath
HTTPIngressPath: path string, rewriteHost string, headers map HeaderMatch, splits! []IngressBackendSplit, appendHeaders map string
HeaderMatch: exact! string
IngressBackendSplit: +IngressBackend, percent int64, appendHeaders map string
IngressBackend: serviceNamespace! string, serviceName! string, servicePort! intstr
ServerlessServiceSpec: mode string, objectRef ObjectReference, protocolType! string, numActivators int32
CertificateSpec: dnsNames! []string, domain string, secretName! string
ImageSpec: image! string, serviceAccountName string, imagePullSecrets []LocalObjectReference
";
