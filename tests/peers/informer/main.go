// Command informer watches ConfigMaps and Knative Services with client-go's shared informers and prints one line per
// event: a client that was written for Kubernetes and knows nothing of Kinglet.
//
// It ends when it has seen the ConfigMap named by -until deleted, or with status 1 after -timeout.
package main

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "path to the kubeconfig")
	namespace := flag.String("namespace", "default", "namespace to watch")
	until := flag.String("until", "last", "end when the ConfigMap of this name is deleted")
	timeout := flag.Duration("timeout", time.Minute, "give up after this long")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	check(err)
	typed, err := kubernetes.NewForConfig(config)
	check(err)
	untyped, err := dynamic.NewForConfig(config)
	check(err)

	var mu sync.Mutex
	done := make(chan struct{})
	var once sync.Once
	handler := func(kind string) cache.ResourceEventHandlerFuncs {
		say := func(verb string, object any) {
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			meta := object.(metav1.Object)
			mu.Lock()
			fmt.Printf("%s %s %s %s\n", verb, kind, meta.GetName(), meta.GetResourceVersion())
			mu.Unlock()
			if verb == "DELETED" && kind == "configmap" && meta.GetName() == *until {
				once.Do(func() { close(done) })
			}
		}
		return cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { say("ADDED", object) },
			UpdateFunc: func(_, object any) { say("MODIFIED", object) },
			DeleteFunc: func(object any) { say("DELETED", object) },
		}
	}

	stop := make(chan struct{})
	defer close(stop)
	factory := informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithNamespace(*namespace))
	configMaps := factory.Core().V1().ConfigMaps().Informer()
	_, err = configMaps.AddEventHandler(handler("configmap"))
	check(err)
	services := dynamicinformer.NewFilteredDynamicSharedInformerFactory(untyped, 0, *namespace, nil).
		ForResource(schema.GroupVersionResource{Group: "serving.knative.dev", Version: "v1", Resource: "services"}).Informer()
	_, err = services.AddEventHandler(handler("ksvc"))
	check(err)
	factory.Start(stop)
	go services.Run(stop)
	if !cache.WaitForCacheSync(stop, configMaps.HasSynced, services.HasSynced) {
		check(fmt.Errorf("the caches did not sync"))
	}
	mu.Lock()
	fmt.Println("SYNCED")
	mu.Unlock()
	select {
	case <-done:
	case <-time.After(*timeout):
		check(fmt.Errorf("did not see configmap %q deleted within %s", *until, *timeout))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "informer:", err)
		os.Exit(1)
	}
}
