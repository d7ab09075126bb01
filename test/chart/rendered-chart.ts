/** charts/lorax-js as Helm renders it. Run by scripts/check-chart.mjs, which names the programs. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseAllDocuments } from 'yaml';

export const chart = fileURLToPath(new URL('../../charts/lorax-js', import.meta.url));
/** '' where it cannot be had here. */
export const {
  LORAX_TEST_HELM: helm = '',
  LORAX_TEST_KUBECONFORM: kubeconform = '',
  LORAX_TEST_SCHEMAS: schemas = '',
} = process.env;

export const valueFiles = readdirSync(path.join(chart, 'ci')).map((name) =>
  path.join(chart, 'ci', name),
);

export interface Resource {
  apiVersion: string;
  kind: string;
  metadata: { name: string; labels: Record<string, string>; annotations?: Record<string, string> };
  // As deep as each kind has it.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  [field: string]: any;
}

export interface Output {
  status: number | null;
  text: string;
  stdout: string;
}

export function run(command: string, args: readonly string[], input?: string): Output {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', input });
  if (error !== undefined) throw error;
  return { status, stdout, text: stdout + stderr };
}

/** The manifests as text; throws what Helm says where it refuses. */
export function template(values: string, ...more: string[]): string {
  const { status, stdout, text } = run(helm, ['template', 'rel', chart, '-f', values, ...more]);
  if (status !== 0) throw new Error(text);
  return stdout;
}

export function render(values: string, ...more: string[]): Resource[] {
  return parseAllDocuments(template(values, ...more))
    .map((document) => document.toJS() as Resource | null)
    .filter((resource) => resource !== null);
}

/** The only one of its kind. */
export function only(resources: readonly Resource[], kind: string): Resource {
  const found = resources.filter((each) => each.kind === kind);
  if (found.length !== 1) throw new Error(`${found.length} resources are a ${kind}`);
  return found[0] as Resource;
}
