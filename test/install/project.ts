/** A project of a user: a folder with a few files, into which a packed lorax-js is installed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

/** Compiling the engine is what takes long. */
const LIMIT_MS = 15 * 60_000;
const root = fileURLToPath(new URL('../..', import.meta.url));

/** Made by scripts/test-package.mjs: the tarballs, and room for the projects. */
export const work = process.env.LORAX_TEST_INSTALL as string;
/** lorax-js as a platform without a package sees it. */
export const sourceTarball = path.join(work, 'lorax-js-source.tgz');
/** lorax-js and the packages of this machine's platform, none of which is published. */
const packed = path.join(work, 'packed');
const tarballs = () => readdirSync(packed).map((name) => path.join(packed, name));

const { devDependencies } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as {
  devDependencies: Record<string, string>;
};

interface ProjectOptions {
  manifest?: object;
  files: Record<string, string>;
  /** Beside lorax-js: of the version that is tested here, unless it names one (`next@15.5.29`). */
  packages?: string[];
  from?: string[];
  /** For npm and the install scripts. */
  env?: NodeJS.ProcessEnv;
}

/** A PATH on which there is what npm needs, and neither CMake nor a compiler. */
export function pathWithoutCompilers(): string {
  const folder = path.join(work, 'no-compilers');
  mkdirSync(folder, { recursive: true });
  const [npm] = (process.env.PATH ?? '')
    .split(path.delimiter)
    .map((each) => path.join(each, 'npm'))
    .filter((file) => existsSync(file));
  const programs = { node: process.execPath, npm: realpathSync(npm as string), sh: '/bin/sh' };
  for (const [name, file] of Object.entries(programs)) {
    const link = path.join(folder, name);
    if (!existsSync(link)) symlinkSync(file, link);
  }
  return folder;
}

export class Project {
  readonly folder: string;

  static async install(
    name: string,
    { manifest = {}, files, packages = [], from = tarballs(), env }: ProjectOptions,
  ): Promise<Project> {
    const project = new Project(path.join(work, name));
    project.#write('package.json', JSON.stringify({ name, private: true, ...manifest }));
    for (const [file, content] of Object.entries(files)) project.#write(file, content);
    const wanted = packages.map((each) => (each.includes('@', 1) ? each : withVersion(each)));
    await project.run('npm', ['install', '--no-audit', '--no-fund', ...from, ...wanted], env);
    return project;
  }

  private constructor(folder: string) {
    this.folder = folder;
  }

  file(...names: string[]): string {
    return path.join(this.folder, ...names);
  }

  /** What `node args` prints. */
  node(...args: string[]): Promise<string> {
    return this.run(process.execPath, args);
  }

  /** What a command prints; one that fails or takes too long is an error with its output. */
  async run(command: string, args: string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
    const child = spawn(command, args, {
      cwd: this.folder,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      // Vitest's own would make the project's programs think that they are tested.
      env: { ...process.env, NODE_ENV: undefined, VITEST: undefined, ...env },
    });
    // With all that it has started, compilers among them.
    const limit = setTimeout(() => process.kill(-(child.pid as number), 'SIGKILL'), LIMIT_MS);
    const closed = once(child, 'close');
    const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
    const [code, signal] = await closed;
    clearTimeout(limit);
    if (code === 0) return stdout.trim();
    throw new Error(`${command} ${args.join(' ')}: ${code ?? signal}\n${stdout}${stderr}`);
  }

  /** Bytes of the files below a folder of it. */
  sizeOf(folder: string): number {
    const entries = readdirSync(this.file(folder), { recursive: true, withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile())
      .map((entry) => statSync(path.join(entry.parentPath, entry.name)).size)
      .reduce((sum, bytes) => sum + bytes, 0);
  }

  #write(file: string, content: string): void {
    mkdirSync(path.dirname(this.file(file)), { recursive: true });
    writeFileSync(this.file(file), content);
  }
}

function withVersion(name: string): string {
  const version = devDependencies[name];
  if (version === undefined) throw new Error(`${name} is no devDependency of ours`);
  return `${name}@${version}`;
}
