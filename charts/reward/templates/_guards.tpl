{{- define "editr1.rewardGuards" -}}
{{- $scaling := .Values.autoscaling -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas %d is above autoscaling.maxReplicas %d" (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if and (eq $scaling.mode "hpa") (lt (int $scaling.minReplicas) 1) -}}
{{- fail "autoscaling.minReplicas 0 needs autoscaling.mode keda: a plain autoscaler cannot wake a service that sleeps" -}}
{{- end -}}
{{- if and .Values.vllm.enabled (hasPrefix "hub:" .Values.inputs.model) -}}
{{- fail "vllm.enabled needs inputs.model as sha256:<digest> or builtin:<name>: the model is fetched from the store" -}}
{{- end -}}
{{- end -}}
