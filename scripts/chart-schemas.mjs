// JSON schemas for kubeconform, one a kind, from what Go modules hold: the OpenAPI document of a Kubernetes
// release and definitions of custom resources. Fields that a schema does not name are refused. Called by
// check-chart.mjs.
import fs from 'node:fs';
import path from 'node:path';

import { parse } from 'yaml';

/** Where kubeconform finds a kind's file below the folder. */
export const SCHEMA_FILES = '{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json';

function write(folder, { group, kind, version }, schema) {
  // The core group has no name of its own there.
  const file = path.join(folder, group || version, `${kind.toLowerCase()}_${version}.json`);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, JSON.stringify(schema));
}

/** A copy in which objects have no fields but those named, and OpenAPI's own words are JSON Schema's. */
function strict(schema) {
  if (Array.isArray(schema)) return schema.map(strict);
  if (typeof schema !== 'object' || schema === null) return schema;
  if (schema['x-kubernetes-int-or-string'] || schema.format === 'int-or-string') {
    return { type: ['integer', 'string'] };
  }
  const { properties, additionalProperties, ...rest } = schema;
  // Formats are of Go's types; what they allow, the type says.
  const result = {};
  for (const [key, value] of Object.entries(rest)) {
    if (key !== 'format' && !key.startsWith('x-')) result[key] = strict(value);
  }
  if (properties !== undefined) {
    result.properties = {};
    for (const [name, each] of Object.entries(properties)) result.properties[name] = strict(each);
    const open = schema['x-kubernetes-preserve-unknown-fields'] === true;
    result.additionalProperties = open;
  }
  if (additionalProperties !== undefined)
    result.additionalProperties = strict(additionalProperties);
  return result;
}

/** All kinds of an OpenAPI v2 document; returns its definitions. */
export function writeKubernetesSchemas(openApiFile, folder) {
  const { definitions: raw } = JSON.parse(fs.readFileSync(openApiFile, 'utf8'));
  const definitions = {};
  for (const [name, each] of Object.entries(raw)) definitions[name] = strict(each);
  // A quantity is written as a number too.
  definitions['io.k8s.apimachinery.pkg.api.resource.Quantity'] = { type: ['string', 'number'] };
  for (const [name, each] of Object.entries(raw)) {
    for (const kind of each['x-kubernetes-group-version-kind'] ?? []) {
      const needed = reachable(definitions, name);
      write(folder, kind, { $ref: `#/definitions/${name}`, definitions: needed });
    }
  }
  return definitions;
}

/** Those that `name` leads to, itself among them. */
function reachable(definitions, name, found = {}) {
  if (found[name] !== undefined) return found;
  found[name] = definitions[name];
  for (const [, next] of JSON.stringify(definitions[name]).matchAll(/"#\/definitions\/([^"]+)"/g)) {
    reachable(definitions, next, found);
  }
  return found;
}

/** Every served version of a CustomResourceDefinition; its metadata is Kubernetes' own. */
export function writeCustomResourceSchemas(crdFile, definitions, folder) {
  const { spec } = parse(fs.readFileSync(crdFile, 'utf8'));
  const metadata = 'io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta';
  for (const { name: version, served, schema } of spec.versions) {
    if (!served) continue;
    const strictSchema = strict(schema.openAPIV3Schema);
    strictSchema.properties.metadata = { $ref: `#/definitions/${metadata}` };
    const kind = { group: spec.group, kind: spec.names.kind, version };
    write(folder, kind, { ...strictSchema, definitions: reachable(definitions, metadata) });
  }
}
