{{- define "operator.name" -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of objects outside the release's namespace. It contains the namespace, so that releases with the same name in two
     namespaces do not conflict. A namespace contains no dot, so two releases never have the same name here. */}}
{{- define "operator.outsideName" -}}
{{- printf "%s.%s" (include "operator.name" .) .Release.Namespace -}}
{{- end -}}

{{/* Owner of the CustomResourceDefinition in the cluster; empty if it does not exist or belongs to this release. Helm refuses to
     install an object that it did not create or that belongs to another release. Without a cluster (helm template), lookup
     finds nothing. */}}
{{- define "operator.otherCrdOwner" -}}
{{- with lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "editruns.editr1.dev" -}}
{{- $annotations := default dict .metadata.annotations -}}
{{- $name := default "" (get $annotations "meta.helm.sh/release-name") -}}
{{- $namespace := default "" (get $annotations "meta.helm.sh/release-namespace") -}}
{{- $managed := eq "Helm" (default "" (get (default dict .metadata.labels) "app.kubernetes.io/managed-by")) -}}
{{- if not (and $managed (eq $name $.Release.Name) (eq $namespace $.Release.Namespace)) -}}
{{- if $name }}release {{ $name }} in namespace {{ $namespace }}{{ else }}no Helm release{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "operator.selectorLabels" -}}
app.kubernetes.io/name: editr1-operator
app.kubernetes.io/instance: {{ include "operator.name" . }}
{{- end -}}

{{- define "operator.labels" -}}
{{ include "operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Permissions of the operator: write the objects of the stage charts, and read their state. It has no access to Secrets. */}}
{{- define "operator.rules" -}}
- apiGroups: [editr1.dev]
  resources: [editruns]
  verbs: [list, watch]
- apiGroups: [editr1.dev]
  resources: [editruns/status]
  verbs: [patch]
- apiGroups: [kubeflow.org]
  resources: [pytorchjobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps, services, serviceaccounts]
  verbs: [get, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, create, patch, delete]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors, prometheusrules]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
{{- end -}}
