package main

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/util/retry"
)

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "clients"}},
		Data:       map[string]string{"n": "0"},
		BinaryData: map[string][]byte{"b": {0, 1, 254, 255}},
	}
}

func typedObjects(ctx context.Context, w *world) error { return objects(ctx, w.typed) }

func protobufObjects(ctx context.Context, w *world) error {
	watch, err := w.protobuf.CoreV1().ConfigMaps(namespace).Watch(ctx, metav1.ListOptions{LabelSelector: "app=clients", ResourceVersion: "0"})
	if err != nil {
		return err
	}
	defer watch.Stop()
	if err := objects(ctx, w.protobuf); err != nil {
		return err
	}
	seen := map[string]int{}
	for seen["DELETED"] == 0 {
		select {
		case event, open := <-watch.ResultChan():
			if !open {
				return fmt.Errorf("the watch ended after %v", seen)
			}
			seen[string(event.Type)]++
		case <-ctx.Done():
			return fmt.Errorf("the watch saw %v only", seen)
		}
	}
	return want(seen["ADDED"] == 1 && seen["MODIFIED"] >= 3, "the watch saw %v", seen)
}

// objects takes a ConfigMap, a Secret, a Service, a Deployment and a Pod through their lives.
func objects(ctx context.Context, client *kubernetes.Clientset) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	made, err := maps.Create(ctx, configMap("objects"), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	err = all(
		want(made.UID != "" && made.ResourceVersion != "" && !made.CreationTimestamp.IsZero(), "no identity: %+v", made.ObjectMeta),
		want(string(made.BinaryData["b"]) == "\x00\x01\xfe\xff", "binary data came back as %v", made.BinaryData),
	)
	if err != nil {
		return err
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := maps.Get(ctx, "objects", metav1.GetOptions{})
		if err != nil {
			return err
		}
		current.Data["n"] = "1"
		_, err = maps.Update(ctx, current, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	for kind, patch := range map[types.PatchType]string{
		types.MergePatchType:          `{"data":{"m":"1"}}`,
		types.StrategicMergePatchType: `{"data":{"s":"1"}}`,
		types.JSONPatchType:           `[{"op":"add","path":"/data/j","value":"1"}]`,
	} {
		if _, err := maps.Patch(ctx, "objects", kind, []byte(patch), metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	current, err := maps.Get(ctx, "objects", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := want(len(current.Data) == 4, "after three patches: %v", current.Data); err != nil {
		return err
	}
	if err := maps.Delete(ctx, "objects", metav1.DeleteOptions{}); err != nil {
		return err
	}
	_, err = maps.Get(ctx, "objects", metav1.GetOptions{})
	if err := want(apierrors.IsNotFound(err), "after deletion: %v", err); err != nil {
		return err
	}

	secret, err := client.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "objects-"}, StringData: map[string]string{"a": "b"},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	err = all(
		want(string(secret.Data["a"]) == "b" && secret.Type == corev1.SecretTypeOpaque, "the Secret: %+v", secret),
		client.CoreV1().Secrets(namespace).Delete(ctx, secret.Name, metav1.DeleteOptions{}),
	)
	if err != nil {
		return err
	}
	service, err := client.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "objects"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "none"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("web")}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	err = all(
		want(service.Spec.ClusterIP != "" && service.Spec.Ports[0].TargetPort.StrVal == "web", "the Service: %+v", service.Spec),
		client.CoreV1().Services(namespace).Delete(ctx, "objects", metav1.DeleteOptions{}),
	)
	if err != nil {
		return err
	}
	zero := int32(0)
	labels := map[string]string{"app": "objects"}
	deployment, err := client.AppsV1().Deployments(namespace).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "objects"},
		Spec: appsv1.DeploymentSpec{Replicas: &zero, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "samples.kinglet/helloworld"}}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	scale, err := client.AppsV1().Deployments(namespace).GetScale(ctx, "objects", metav1.GetOptions{})
	if err != nil {
		return err
	}
	return all(
		want(deployment.Spec.Strategy.RollingUpdate != nil && deployment.Spec.Template.Spec.DNSPolicy == corev1.DNSClusterFirst, "no defaults: %+v", deployment.Spec),
		want(scale.Spec.Replicas == 0 && scale.Status.Selector == "app=objects", "the scale: %+v", scale),
		client.AppsV1().Deployments(namespace).Delete(ctx, "objects", metav1.DeleteOptions{}),
	)
}

func serverSideApply(ctx context.Context, w *world) error {
	maps := w.typed.CoreV1().ConfigMaps(namespace)
	if err := absent(maps.Delete(ctx, "applied", metav1.DeleteOptions{})); err != nil {
		return err
	}
	apply := func(manager string, force bool, data map[string]string) (*corev1.ConfigMap, error) {
		return maps.Apply(ctx, applycorev1.ConfigMap("applied", namespace).WithData(data), metav1.ApplyOptions{FieldManager: manager, Force: force})
	}
	if _, err := apply("one", false, map[string]string{"a": "1", "b": "1"}); err != nil {
		return err
	}
	_, err := apply("two", false, map[string]string{"a": "2"})
	if err := want(apierrors.IsConflict(err) && apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict), "a second manager: %v", err); err != nil {
		return err
	}
	if _, err := apply("two", true, map[string]string{"a": "2"}); err != nil {
		return err
	}
	current, err := apply("one", false, map[string]string{"c": "1"})
	if err != nil {
		return err
	}
	if err := want(fmt.Sprint(current.Data) == "map[a:2 c:1]", "one gave b up, two has a: %v", current.Data); err != nil {
		return err
	}
	// What one manager applied can be extracted, changed and applied again.
	extracted, err := applycorev1.ExtractConfigMap(current, "one")
	if err != nil {
		return err
	}
	if err := want(len(extracted.Data) == 1 && extracted.Data["c"] == "1", "extracted %v", extracted.Data); err != nil {
		return err
	}
	return maps.Delete(ctx, "applied", metav1.DeleteOptions{})
}

func metadataOnly(ctx context.Context, w *world) error {
	client, err := metadata.NewForConfig(w.config)
	if err != nil {
		return err
	}
	list, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace("knative-serving").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	return want(len(list.Items) > 5 && list.Items[0].Name != "" && list.ResourceVersion != "", "%d items", len(list.Items))
}

func conflicts(ctx context.Context, w *world) error {
	maps := w.typed.CoreV1().ConfigMaps(namespace)
	made, err := maps.Create(ctx, configMap("conflict"), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, again := maps.Create(ctx, configMap("conflict"), metav1.CreateOptions{})
	made.Data["n"] = "1"
	if _, err := maps.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
		return err
	}
	_, stale := maps.Update(ctx, made, metav1.UpdateOptions{})
	return all(
		want(apierrors.IsAlreadyExists(again), "created twice: %v", again),
		want(apierrors.IsConflict(stale), "a stale update: %v", stale),
		maps.Delete(ctx, "conflict", metav1.DeleteOptions{}),
	)
}

func preconditions(ctx context.Context, w *world) error {
	maps := w.typed.CoreV1().ConfigMaps(namespace)
	made, err := maps.Create(ctx, configMap("held"), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	other, old := types.UID("other"), "1"
	byUID := maps.Delete(ctx, "held", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}})
	byVersion := maps.Delete(ctx, "held", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &old}})
	return all(
		want(apierrors.IsConflict(byUID), "another UID: %v", byUID),
		want(apierrors.IsConflict(byVersion), "another version: %v", byVersion),
		maps.Delete(ctx, "held", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &made.UID}}),
	)
}

func deleteCollection(ctx context.Context, w *world) error {
	maps := w.typed.CoreV1().ConfigMaps(namespace)
	for _, name := range []string{"many-1", "many-2", "many-3"} {
		object := configMap(name)
		object.Labels["many"] = "yes"
		if _, err := maps.Create(ctx, object, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "many=yes"}); err != nil {
		return err
	}
	left, err := maps.List(ctx, metav1.ListOptions{LabelSelector: "many"})
	if err != nil {
		return err
	}
	return want(len(left.Items) == 0, "%d left", len(left.Items))
}

func dryRun(ctx context.Context, w *world) error {
	maps := w.typed.CoreV1().ConfigMaps(namespace)
	made, err := maps.Create(ctx, configMap("dry"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return err
	}
	_, err = maps.Get(ctx, "dry", metav1.GetOptions{})
	return all(
		want(made.UID != "", "no UID in a dry run"),
		want(apierrors.IsNotFound(err), "after a dry run: %v", err),
	)
}

func discoveryBothWays(ctx context.Context, w *world) error {
	client, err := discovery.NewDiscoveryClientForConfig(w.config)
	if err != nil {
		return err
	}
	_, aggregated, err := client.ServerGroupsAndResources()
	if err != nil {
		return err
	}
	client.UseLegacyDiscovery = true
	_, legacy, err := client.ServerGroupsAndResources()
	if err != nil {
		return err
	}
	_, missing := client.ServerResourcesForGroupVersion("nosuch.example.com/v1")
	_, document := client.OpenAPISchema()
	version, err := client.ServerVersion()
	return all(err,
		want(len(aggregated) == len(legacy) && len(legacy) > 10, "%d group versions aggregated, %d one by one", len(aggregated), len(legacy)),
		want(apierrors.IsNotFound(missing), "an unknown group: %v", missing),
		document,
		want(version != nil && version.Major == "1", "version %v", version),
	)
}

func accessReviews(ctx context.Context, w *world) error {
	ask := func(user, verb, resource string) (bool, error) {
		review, err := w.protobuf.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: namespace, Verb: verb, Resource: resource}},
		}, metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		return review.Status.Allowed, nil
	}
	nobody, err := ask("nobody", "list", "secrets")
	if err != nil {
		return err
	}
	self, err := w.typed.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "*", Resource: "*", Group: "*"}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	who, err := w.typed.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return all(
		want(!nobody, "nobody may list Secrets"),
		want(self.Status.Allowed, "the administrator may not do everything"),
		want(who.Status.UserInfo.Username != "", "nobody asked"),
	)
}

func tokens(ctx context.Context, w *world) error {
	seconds := int64(600)
	review := func(token string, audiences ...string) (*authenticationv1.TokenReview, error) {
		return w.typed.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}}, metav1.CreateOptions{})
	}
	made, err := w.typed.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, "default", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}, ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	right, err := review(made.Status.Token, "vault", "other")
	if err != nil {
		return err
	}
	wrong, err := review(made.Status.Token)
	if err != nil {
		return err
	}
	return all(
		want(right.Status.Authenticated && fmt.Sprint(right.Status.Audiences) == "[vault]", "its audience: %+v", right.Status),
		want(!wrong.Status.Authenticated, "the API server's audience: %+v", wrong.Status),
		want(right.Status.User.Username == "system:serviceaccount:default:default", "its user: %+v", right.Status.User),
	)
}
