#!/bin/sh
# Builds the cluster's binary as the file $1. Without $1 it only compiles, which leaves a later call little but the linking.
set -eu
output=${1-}
cd "$(dirname "$0")"
# A go.work file above the checkout would replace this module's own requirements.
export GOWORK=off

# Nobody debugs this binary, so there is no debug information. What is seldom run, or only hands on, is compiled without
# inlining. Inlining stays in what the API server and etcd spend their time in. README.md has the figures.
set -- -trimpath -gcflags=all=-dwarf=false
for cold in k8s.io/kubernetes k8s.io/kubectl sigs.k8s.io/kustomize k8s.io/client-go/kubernetes k8s.io/client-go/informers \
    k8s.io/client-go/applyconfigurations k8s.io/client-go/listers; do
    set -- "$@" "-gcflags=$cold/...=-l -dwarf=false"
done

if [ -z "$output" ]; then
    exec go list -export "$@" -f '{{.ImportPath}}' .
fi
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
exec go build "$@" -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" -o "$output" .
