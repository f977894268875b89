{{/* Name of every object of the release. A pod name is this name with a suffix such as "-master-0". */}}
{{- define "editr1.name" -}}
{{- include "editr1.checkReleaseName" . -}}
{{- .Release.Name -}}
{{- end -}}

{{- define "editr1.run" -}}
{{- default (include "editr1.name" .) .Values.run -}}
{{- end -}}

{{/* Kind of the stage: "serve" for the reward chart, otherwise the name of the chart. */}}
{{- define "editr1.kind" -}}
{{- if eq .Chart.Name "reward" }}serve{{ else }}{{ .Chart.Name }}{{ end -}}
{{- end -}}

{{- define "editr1.stage" -}}
{{- default (include "editr1.kind" .) .Values.stage -}}
{{- end -}}

{{- define "editr1.selectorLabels" -}}
app.kubernetes.io/name: {{ printf "editr1-%s" .Chart.Name }}
app.kubernetes.io/instance: {{ include "editr1.name" . | quote }}
{{- end -}}

{{- define "editr1.runLabels" -}}
editr1.dev/run: {{ include "editr1.run" . | quote }}
editr1.dev/stage: {{ include "editr1.stage" . | quote }}
editr1.dev/kind: {{ include "editr1.kind" . }}
{{- end -}}

{{- define "editr1.labels" -}}
{{ include "editr1.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: {{ include "editr1.kind" . }}
app.kubernetes.io/part-of: editr1
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "editr1.runLabels" . }}
{{- end -}}

{{- define "editr1.podLabels" -}}
{{ include "editr1.selectorLabels" . }}
app.kubernetes.io/component: {{ include "editr1.kind" . }}
app.kubernetes.io/part-of: editr1
{{ include "editr1.runLabels" . }}
{{- with merge (deepCopy .Values.podLabels) .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels and annotations of an object. Arguments: dict "root" $ and, optionally, "labels" <additional labels> "annotations"
     <additional annotations>. */}}
{{- define "editr1.objectMetadata" -}}
{{- $values := .root.Values -}}
labels:
  {{- include (ternary "operator.labels" "editr1.labels" (eq .root.Chart.Name "operator")) .root | nindent 2 }}
  {{- with merge (deepCopy (default dict .labels)) $values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (deepCopy (default dict .annotations)) $values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "editr1.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "editr1.serviceAccount" -}}
{{- $own := ternary "operator.name" "editr1.name" (eq .Chart.Name "operator") -}}
{{- default (include $own .) .Values.serviceAccountName -}}
{{- end -}}

{{/* A label selector in text form: key=value,key=value. */}}
{{- define "editr1.selector" -}}
{{- $parts := list -}}
{{- range $key, $value := . }}{{ $parts = append $parts (printf "%s=%s" $key $value) }}{{ end -}}
{{- join "," $parts -}}
{{- end -}}
