// What the endpoint picker is configured to go by, in its own words (EndpointPickerConfig).

function config(scorers, picker = 'max-score-picker') {
  const plugins = [...Object.keys(scorers), picker];
  return {
    ...{ apiVersion: 'inference.networking.x-k8s.io/v1alpha1', kind: 'EndpointPickerConfig' },
    plugins: plugins.map((type) => ({ type })),
    schedulingProfiles: [
      {
        name: 'default',
        plugins: plugins.map((type) => ({ pluginRef: type, weight: scorers[type] })),
      },
    ],
  };
}

/** The picker's defaults, which are its Helm chart's too: adapters are not looked at. */
const DEFAULTS = { 'queue-scorer': 2, 'kv-cache-utilization-scorer': 2, 'prefix-cache-scorer': 3 };

export const PICKERS = {
  'lora-affinity': config({ ...DEFAULTS, 'lora-affinity-scorer': 3 }),
  // All four with one weight, as the picker's own tests have them.
  'lora-affinity, equal weights': config({
    ...{ 'queue-scorer': 1, 'kv-cache-utilization-scorer': 1, 'prefix-cache-scorer': 1 },
    'lora-affinity-scorer': 1,
  }),
  defaults: config(DEFAULTS),
  random: config({}, 'random-picker'),
};
