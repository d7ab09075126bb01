/** Runs the built `lorax-js` command as users do, in a process of its own. */
import { spawn, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));

export interface CliResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface RunningCli {
  child: ChildProcess;
  result: Promise<CliResult>;
}

export function startCli(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  input = '',
): RunningCli {
  const child = spawn(process.execPath, [`${root}/dist/cli.mjs`, ...args], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stdin?.end(input);
  let [stdout, stderr] = ['', ''];
  child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const result = new Promise<CliResult>((resolve) =>
    child.on('close', (code) => resolve({ code, stdout, stderr })),
  );
  return { child, result };
}

export const runCli = (args: readonly string[], env?: NodeJS.ProcessEnv) =>
  startCli(args, env).result;

// Documents of every shape, looked into by tests alone.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type AnyJson = any;

/** Fails where stdout is anything but one JSON document. */
export async function runJson(
  args: readonly string[],
  env?: NodeJS.ProcessEnv,
): Promise<{ code: number | null; json: AnyJson }> {
  const { code, stdout, stderr } = await runCli([...args, '--json'], env);
  try {
    return { code, json: JSON.parse(stdout) };
  } catch {
    throw new Error(`not one JSON document: ${stdout}\n${stderr}`);
  }
}
