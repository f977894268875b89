{{/* Checks of values that a JSON schema cannot express. Every chart includes this template first. */}}
{{- define "editr1.guards" -}}
{{- if not .Values.store.url -}}
{{- fail "store.url is not set: set it to the artifact store, such as --set store.url=s3://my-bucket/editr1" -}}
{{- end -}}
{{- if and (hasKey .Values "queueName") .Values.queueName .Values.suspend -}}
{{- fail "queueName and suspend are both set, but Kueue decides when a job with a queue is suspended: set only one of them" -}}
{{- end -}}
{{- if and .Values.scratch.claim (gt (int (default 1 .Values.nodes)) 1) -}}
{{- fail "scratch.claim is set and nodes is above 1, but many volumes can be mounted on one node only: leave scratch.claim empty, so that each pod gets a separate volume" -}}
{{- end -}}
{{- end -}}

{{/* Fails if a required input is missing. Argument: dict "root" $ "names" <list of required inputs>. */}}
{{- define "editr1.requireInputs" -}}
{{- $root := .root -}}
{{- range .names -}}
{{- if not (hasKey $root.Values.inputs .) -}}
{{- fail (printf "inputs.%s is not set, and a %s stage requires it: set it to sha256:<digest>, run:<run>/<stage>/<output>, hub:<name>@<revision> or builtin:<name>" . (include "editr1.kind" $root)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
