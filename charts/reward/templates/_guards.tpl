{{/* Settings of the reward server as JSON: those in the values, with the fields that the chart determines. */}}
{{- define "editr1.rewardConfig" -}}
{{- $forced := dict "host" "*" "port" 8000 -}}
{{- if .Values.vllm.enabled -}}
{{- $openai := dict "base_url" "http://127.0.0.1:8001/v1" "model" "verifier" -}}
{{- $forced = merge $forced (dict "engine" "openai" "openai" (merge $openai (default dict .Values.config.openai))) -}}
{{- end -}}
{{- merge $forced .Values.config | toJson -}}
{{- end -}}

{{- define "editr1.rewardGuards" -}}
{{- $scaling := .Values.autoscaling -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas %d exceeds autoscaling.maxReplicas %d: lower one or raise the other" (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- if and (eq $scaling.mode "hpa") (lt (int $scaling.minReplicas) 1) -}}
{{- fail "autoscaling.minReplicas 0 requires autoscaling.mode keda, because a HorizontalPodAutoscaler cannot scale up from 0: set minReplicas to at least 1, or the mode to keda" -}}
{{- end -}}
{{- if and .Values.vllm.enabled (hasPrefix "hub:" .Values.inputs.model) -}}
{{- fail "inputs.model is a hub: reference, but vllm.enabled fetches the model from the artifact store: set it to sha256:<digest> or builtin:<name>" -}}
{{- end -}}
{{- end -}}
