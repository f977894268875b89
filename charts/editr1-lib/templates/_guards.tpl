{{/* What no schema can say. Included by every chart before anything is rendered. */}}
{{- define "editr1.guards" -}}
{{- if not .Values.store.url -}}
{{- fail "store.url is not set: name the bucket, such as --set store.url=s3://my-bucket/editr1" -}}
{{- end -}}
{{- if and .Values.scratch.claim (gt (int (default 1 .Values.nodes)) 1) -}}
{{- fail "scratch.claim cannot be shared by several nodes: leave it empty, each pod then has a folder of its own" -}}
{{- end -}}
{{- end -}}

{{/* dict "root" $ "names" (list of required inputs) */}}
{{- define "editr1.needs" -}}
{{- $root := .root -}}
{{- range .names -}}
{{- if not (hasKey $root.Values.inputs .) -}}
{{- fail (printf "inputs.%s is not set: a %s stage needs it, as sha256:<digest>, run:<run>/<stage>/<output>, hub:<name>@<revision> or builtin:<name>" . (include "editr1.kind" $root)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
