package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

// What kube-controller-manager takes where no flag says otherwise.
const (
	resync             = 12 * time.Hour
	namespaceResync    = 5 * time.Minute
	namespaceWorkers   = 10
	collectorWorkers   = 20
	collectorSync      = 30 * time.Second
	aggregationWorkers = 5
)

// settings are those flags of kube-controller-manager that the world sets, under its names: KUBEBUILDER_ASSETS may hold the
// whole kube-controller-manager, which is started in the same way.
type settings struct {
	kubeconfig  string
	controllers string
	rootCAFile  string
}

func parse(arguments []string) (settings, error) {
	var given settings
	flags := flag.NewFlagSet("kube-controller-manager", flag.ContinueOnError)
	flags.StringVar(&given.kubeconfig, "kubeconfig", "", "who the controllers are, and where the API server is")
	flags.StringVar(&given.controllers, "controllers", "", "the controllers to run: names with commas between them")
	flags.StringVar(&given.rootCAFile, "root-ca-file", "", "the certificates to publish in every namespace")
	elects := flags.Bool("leader-elect", false, "only false: there is but one")
	port := flags.Int("secure-port", 0, "only 0: nothing is served")
	profiles := flags.Bool("profiling", false, "only false: nothing is served")
	if err := flags.Parse(arguments); err != nil {
		return given, err
	}
	if flags.NArg() > 0 {
		return given, fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	if *elects || *port != 0 || *profiles {
		return given, errors.New("this kube-controller-manager elects no leader and serves nothing")
	}
	return given, nil
}

// cluster is what the controllers share.
type cluster struct {
	client     kubernetes.Interface
	metadata   metadata.Interface
	typed      informers.SharedInformerFactory
	byResource informerfactory.InformerFactory
	started    chan struct{}
	rootCAFile string
}

// trim leaves out what none of the controllers reads, and what is half of many an object in memory.
func trim(object any) (any, error) {
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}

// loop runs a controller until the context ends.
type loop func(context.Context)

// Each registers the informers that it needs and returns what runs it; by kube-controller-manager's names.
var controllers = map[string]func(context.Context, *cluster) (loop, error){
	"namespace-controller":                     namespaces,
	"garbage-collector-controller":             garbage,
	"serviceaccount-controller":                serviceAccounts,
	"root-ca-certificate-publisher-controller": rootCertificates,
	"clusterrole-aggregation-controller":       clusterRoles,
}

// controllerManager runs what `--controllers` names until a signal ends it.
func controllerManager(arguments []string) error {
	given, err := parse(arguments)
	if err != nil {
		return err
	}
	ctx := genericapiserver.SetupSignalContext()
	shared, err := connect(given)
	if err != nil {
		return err
	}
	var loops []loop
	for name := range strings.SplitSeq(given.controllers, ",") {
		start, found := controllers[name]
		if !found {
			return fmt.Errorf("%q is none of the controllers that this kube-controller-manager has", name)
		}
		run, err := start(ctx, shared)
		if err != nil {
			return fmt.Errorf("%s does not start: %w", name, err)
		}
		loops = append(loops, run)
	}
	shared.byResource.Start(ctx.Done())
	close(shared.started)
	var running sync.WaitGroup
	for _, run := range loops {
		running.Go(func() { run(ctx) })
	}
	running.Wait()
	return nil
}

func connect(given settings) (*cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", given.kubeconfig)
	if err != nil {
		return nil, err
	}
	config.UserAgent = "kube-controller-manager"
	config.DisableCompression = true
	config.ContentType = runtime.ContentTypeProtobuf
	// No limit: to empty a namespace is a request for every kind there is, and the API server is there for nobody else.
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	every := resync + rand.N(resync)
	typed := informers.NewSharedInformerFactoryWithOptions(client, every, informers.WithTransform(trim))
	metadatas := metadatainformer.NewSharedInformerFactoryWithOptions(metadataClient, every, metadatainformer.WithTransform(trim))
	return &cluster{
		client:     client,
		metadata:   metadataClient,
		typed:      typed,
		byResource: informerfactory.NewInformerFactory(typed, metadatas),
		started:    make(chan struct{}),
		rootCAFile: given.rootCAFile,
	}, nil
}

func namespaces(ctx context.Context, shared *cluster) (loop, error) {
	controller := namespace.NewNamespaceController(
		ctx, shared.client, shared.metadata, shared.client.Discovery().ServerPreferredNamespacedResources,
		shared.typed.Core().V1().Namespaces(), namespaceResync, corev1.FinalizerKubernetes,
	)
	return func(ctx context.Context) { controller.Run(ctx, namespaceWorkers) }, nil
}

func garbage(ctx context.Context, shared *cluster) (loop, error) {
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(shared.client.Discovery()))
	collector, err := garbagecollector.NewGarbageCollector(
		ctx, shared.client, shared.metadata, mapper, garbagecollector.DefaultIgnoredResources(), shared.byResource, shared.started,
	)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		go wait.UntilWithContext(ctx, func(context.Context) { mapper.Reset() }, collectorSync)
		// This is how it hears of kinds that are defined later.
		go collector.Sync(ctx, shared.client.Discovery(), collectorSync)
		collector.Run(ctx, collectorWorkers, collectorSync)
	}, nil
}

func serviceAccounts(ctx context.Context, shared *cluster) (loop, error) {
	core := shared.typed.Core().V1()
	controller, err := serviceaccount.NewServiceAccountsController(
		klog.FromContext(ctx), core.ServiceAccounts(), core.Namespaces(), shared.client,
		serviceaccount.DefaultServiceAccountsControllerOptions(),
	)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { controller.Run(ctx, 1) }, nil
}

func rootCertificates(_ context.Context, shared *cluster) (loop, error) {
	certificates, err := os.ReadFile(shared.rootCAFile)
	if err != nil {
		return nil, err
	}
	core := shared.typed.Core().V1()
	publisher, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), shared.client, certificates)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { publisher.Run(ctx, 1) }, nil
}

func clusterRoles(_ context.Context, shared *cluster) (loop, error) {
	controller := clusterroleaggregation.NewClusterRoleAggregation(shared.typed.Rbac().V1().ClusterRoles(), shared.client.RbacV1())
	return func(ctx context.Context) { controller.Run(ctx, aggregationWorkers) }, nil
}
