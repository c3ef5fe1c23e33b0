package main

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"
)

type runtimeObject = runtime.Object

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// errorWindow is how long kn lets a Service say False before it believes it.
const errorWindow = 2 * time.Second

// knWaits does ten times what `kn service update --traffic nope=100` and `--request cpu=500` do, and heals the Service between.
func knWaits(ctx context.Context, w *world) error {
	client := w.dynamic.Resource(services).Namespace(namespace)
	if err := absent(client.Delete(ctx, "kn", metav1.DeleteOptions{})); err != nil {
		return err
	}
	service := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": map[string]any{"name": "kn"},
		"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"image": "samples.kinglet/helloworld"}}}}},
	}}
	if _, err := client.Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := waitForReady(ctx, client, "kn"); err != nil {
		return fmt.Errorf("created: %w", err)
	}
	for round := range 5 {
		err := update(ctx, client, func(spec map[string]any) {
			spec["traffic"] = []any{map[string]any{"revisionName": "nope", "percent": int64(100)}}
		})
		if err != nil {
			return err
		}
		told := waitForReady(ctx, client, "kn")
		if err := want(told != nil && told.Error() == `RevisionMissing: Revision "nope" referenced in traffic not found.`, "round %d: %v", round, told); err != nil {
			return err
		}
		err = update(ctx, client, func(spec map[string]any) {
			spec["traffic"] = []any{map[string]any{"latestRevision": true, "percent": int64(100)}}
		})
		if err != nil {
			return err
		}
		if err := waitForReady(ctx, client, "kn"); err != nil {
			return fmt.Errorf("healed in round %d: %w", round, err)
		}
	}
	return client.Delete(ctx, "kn", metav1.DeleteOptions{})
}

func update(ctx context.Context, client dynamic.ResourceInterface, change func(spec map[string]any)) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		service, err := client.Get(ctx, "kn", metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(service.Object["spec"].(map[string]any))
		_, err = client.Update(ctx, service, metav1.UpdateOptions{})
		return err
	})
}

// waitForReady reads the Service, which may be ready already, watches from what it read, and looks at MODIFIED events alone.
func waitForReady(ctx context.Context, client dynamic.ResourceInterface, name string) error {
	read, err := client.Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if status, _ := readiness(read); status == "True" {
		return nil
	}
	seconds := int64(60)
	stream, err := client.Watch(ctx, metav1.ListOptions{
		FieldSelector: "metadata.name=" + name, ResourceVersion: read.GetResourceVersion(), TimeoutSeconds: &seconds})
	if err != nil {
		return err
	}
	defer stream.Stop()
	var failure error
	var window <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("hangs")
		case <-window:
			return failure
		case event, open := <-stream.ResultChan():
			if !open {
				return fmt.Errorf("the watch ended")
			}
			if event.Type != watch.Modified {
				continue
			}
			object := event.Object.(*unstructured.Unstructured)
			switch status, detail := readiness(object); status {
			case "True":
				return nil
			case "False":
				failure = detail
				if window == nil {
					window = time.After(errorWindow)
				}
			case "Unknown":
				window = nil
			}
		}
	}
}

// readiness is the status of condition Ready, and what it says; nothing while the status is of an older generation.
func readiness(object *unstructured.Unstructured) (any, error) {
	if object == nil {
		return nil, nil
	}
	observed, _, _ := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	if observed != object.GetGeneration() {
		return nil, nil
	}
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, entry := range conditions {
		if condition := entry.(map[string]any); condition["type"] == "Ready" {
			return condition["status"], fmt.Errorf("%v: %v", condition["reason"], condition["message"])
		}
	}
	return nil, nil
}
