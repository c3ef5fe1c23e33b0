package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/pager"
)

func leaderElection(ctx context.Context, w *world) error {
	var leading, most atomic.Int32
	candidate := func(ctx context.Context, name string, led chan<- string) {
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Name: "clients", Namespace: namespace},
				Client:     w.protobuf.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: name},
			},
			ReleaseOnCancel: true, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 200 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) {
					if now := leading.Add(1); now > most.Load() {
						most.Store(now)
					}
					led <- name
					<-ctx.Done()
					leading.Add(-1)
				},
				OnStoppedLeading: func() {},
			},
		})
	}
	led := make(chan string, 2)
	first, stopFirst := context.WithCancel(ctx)
	defer stopFirst()
	second, stopSecond := context.WithCancel(ctx)
	defer stopSecond()
	go candidate(first, "first", led)
	var order []string
	for len(order) < 2 {
		select {
		case name := <-led:
			order = append(order, name)
			if name == "first" {
				go candidate(second, "second", led)
				time.AfterFunc(time.Second, stopFirst)
			}
		case <-ctx.Done():
			return fmt.Errorf("led: %v", order)
		}
	}
	lease, err := w.typed.CoordinationV1().Leases(namespace).Get(ctx, "clients", metav1.GetOptions{})
	if err != nil {
		return err
	}
	return all(
		want(*lease.Spec.HolderIdentity == "second" && *lease.Spec.LeaseTransitions >= 1, "the Lease: %+v", lease.Spec),
		want(lease.Spec.RenewTime.Nanosecond()%1000 == 0, "microseconds: %v", lease.Spec.RenewTime),
	)
}

func watchList(ctx context.Context, w *world) error {
	yes := true
	stream, err := w.dynamic.Resource(configMaps).Namespace("knative-serving").Watch(ctx, metav1.ListOptions{
		SendInitialEvents: &yes, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	if err != nil {
		return err
	}
	defer stream.Stop()
	added := 0
	for event := range stream.ResultChan() {
		switch event.Type {
		case watch.Added:
			added++
		case watch.Bookmark:
			mark := event.Object.(*unstructured.Unstructured)
			return want(mark.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" && added > 5 && mark.GetResourceVersion() != "",
				"%d additions, then %v", added, mark)
		default:
			return fmt.Errorf("%s: %v", event.Type, event.Object)
		}
	}
	return fmt.Errorf("the watch ended after %d additions", added)
}

func watchListInformer(ctx context.Context, w *world) error {
	factory := informers.NewSharedInformerFactoryWithOptions(w.protobuf, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().ConfigMaps().Informer()
	seen := make(chan string, 100)
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { seen <- "+" + object.(*corev1.ConfigMap).Name },
		DeleteFunc: func(object any) { seen <- "-" + object.(metav1.Object).GetName() },
	})
	if err != nil {
		return err
	}
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	factory.Start(stop.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("did not sync")
	}
	maps := w.typed.CoreV1().ConfigMaps(namespace)
	if _, err := maps.Create(ctx, configMap("informed"), metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := maps.Delete(ctx, "informed", metav1.DeleteOptions{}); err != nil {
		return err
	}
	for {
		select {
		case name := <-seen:
			if name == "-informed" {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func pages(ctx context.Context, w *world) error {
	maps := w.typed.CoreV1().ConfigMaps("knative-serving")
	whole, err := maps.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	count := 0
	err = pager.New(func(ctx context.Context, options metav1.ListOptions) (list runtimeObject, err error) {
		return maps.List(ctx, options)
	}).EachListItem(ctx, metav1.ListOptions{Limit: 3}, func(runtimeObject) error { count++; return nil })
	if err != nil {
		return err
	}
	first, err := maps.List(ctx, metav1.ListOptions{Limit: 2})
	if err != nil {
		return err
	}
	_, broken := maps.List(ctx, metav1.ListOptions{Limit: 2, Continue: "bm90aGluZw"})
	_, exact := maps.List(ctx, metav1.ListOptions{ResourceVersion: "999999999", ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	_, future := maps.List(ctx, metav1.ListOptions{ResourceVersion: "999999999", ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	return all(
		want(count == len(whole.Items), "%d in pages, %d at once", count, len(whole.Items)),
		want(first.Continue != "" && first.RemainingItemCount != nil && int(*first.RemainingItemCount) == len(whole.Items)-2, "the first page: %+v", first.ListMeta),
		want(apierrors.IsBadRequest(broken), "a broken token: %v", broken),
		want(exact != nil, "a version of the future was listed"),
		want(apierrors.IsTimeout(future) || apierrors.IsServerTimeout(future), "not older than the future: %v", future),
	)
}

func fieldSelectors(ctx context.Context, w *world) error {
	one, err := w.typed.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=config-autoscaler,metadata.namespace=knative-serving"})
	if err != nil {
		return err
	}
	_, pods := w.typed.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "status.phase!=Running,spec.nodeName=kinglet"})
	_, events := w.typed.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Pod,type!=Normal,reason=Killing"})
	_, refused := w.typed.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{FieldSelector: "data.x=1"})
	return all(
		want(len(one.Items) == 1, "%d by name", len(one.Items)), pods, events,
		want(apierrors.IsBadRequest(refused) && strings.Contains(refused.Error(), `"data.x" is not a known field selector`), "an unknown label: %v", refused),
	)
}

func tables(ctx context.Context, w *world) error {
	for path, column := range map[string]string{
		"/api/v1/namespaces/knative-serving/configmaps": "Data",
		"/api/v1/nodes":                                           "Version",
		"/apis/serving.knative.dev/v1/services":                   "URL",
		"/apis/apps/v1/deployments":                               "Up-to-date",
		"/api/v1/events":                                          "Reason",
		"/apis/rbac.authorization.k8s.io/v1/clusterroles":         "Created At",
		"/apis/apiextensions.k8s.io/v1/customresourcedefinitions": "Created At",
	} {
		data, err := raw(ctx, w, path, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
		if err != nil {
			return err
		}
		var table metav1.Table
		if err := decoded(data, &table); err != nil {
			return err
		}
		found := false
		for _, definition := range table.ColumnDefinitions {
			found = found || definition.Name == column
		}
		if err := want(table.Kind == "Table" && found, "no column %s in %s: %v", column, path, table.ColumnDefinitions); err != nil {
			return err
		}
		for _, row := range table.Rows {
			if len(row.Cells) != len(table.ColumnDefinitions) {
				return fmt.Errorf("%s: %d cells under %d columns", path, len(row.Cells), len(table.ColumnDefinitions))
			}
		}
	}
	return nil
}
