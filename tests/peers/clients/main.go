// Command clients does what programs written with client-go do: typed and dynamic clients, protobuf, server-side apply,
// leader election, watch lists, pages, selectors, tables, and kn's way of waiting. It knows nothing of Kinglet.
//
// Each check prints one line, "ok NAME" or "FAIL NAME: why"; the status is 1 if any failed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// world is what every check is given.
type world struct {
	config   *rest.Config
	typed    *kubernetes.Clientset
	protobuf *kubernetes.Clientset
	dynamic  dynamic.Interface
}

const namespace = "default"

var services = schema.GroupVersionResource{Group: "serving.knative.dev", Version: "v1", Resource: "services"}

var checks = []struct {
	name string
	run  func(context.Context, *world) error
}{
	{"typed clients create, read, update, patch and delete", typedObjects},
	{"protobuf both ways, watches included", protobufObjects},
	{"server-side apply owns, conflicts and takes over", serverSideApply},
	{"leaders are elected with Leases, one at a time", leaderElection},
	{"a watch list sends what is there, then its mark", watchList},
	{"an informer on watch lists survives", watchListInformer},
	{"pages continue, and end in 410 with a token to go on", pages},
	{"field selectors select, and refuse in words", fieldSelectors},
	{"tables have columns and rows", tables},
	{"metadata clients see metadata", metadataOnly},
	{"a conflict is a conflict", conflicts},
	{"preconditions hold deletions back", preconditions},
	{"collections are deleted by selector", deleteCollection},
	{"dry runs change nothing", dryRun},
	{"discovery lists groups both ways", discoveryBothWays},
	{"access reviews answer", accessReviews},
	{"tokens are made for their audience", tokens},
	{"kn waits for a broken update and is told", knWaits},
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "path to the kubeconfig")
	only := flag.String("only", "", "run checks whose name contains this")
	timeout := flag.Duration("timeout", time.Minute, "for each check")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	exitOn(err)
	config.QPS, config.Burst = 200, 400
	w := &world{config: config}
	w.typed, err = kubernetes.NewForConfig(config)
	exitOn(err)
	binary := rest.CopyConfig(config)
	binary.ContentType = "application/vnd.kubernetes.protobuf"
	binary.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	w.protobuf, err = kubernetes.NewForConfig(binary)
	exitOn(err)
	w.dynamic, err = dynamic.NewForConfig(config)
	exitOn(err)

	failed := false
	for _, check := range checks {
		if !strings.Contains(check.name, *only) {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), *timeout)
		err := check.run(ctx, w)
		cancel()
		if err != nil {
			failed = true
			fmt.Printf("FAIL %s: %v\n", check.name, err)
			continue
		}
		fmt.Println("ok", check.name)
	}
	if failed {
		os.Exit(1)
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

// want is nil where a holds.
func want(holds bool, format string, arguments ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf(format, arguments...)
}

// all is the first error.
func all(errs ...error) error {
	return errors.Join(errs...)
}

// absent deletes what an earlier run left.
func absent(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func raw(ctx context.Context, w *world, path, accept string) ([]byte, error) {
	return w.typed.CoreV1().RESTClient().Get().AbsPath(strings.Split(path, "?")[0]).
		SetHeader("Accept", accept).VersionedParams(&metav1.ListOptions{}, metav1.ParameterCodec).Do(ctx).Raw()
}

func decoded(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%w in %.200s", err, data)
	}
	return nil
}
