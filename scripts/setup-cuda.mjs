// A CUDA compiler without root, GPU or NVIDIA's installer: pip wheels of fixed versions, made into
// the folder that nvcc and CMake expect, in .cache/cuda. About 500 MB to download, once; then it
// costs nothing. Compiles and links for any GPU; running needs a machine with a driver.
//     eval "$(node scripts/setup-cuda.mjs)"    # exports CUDACXX, CUDA_HOME, PATH
// Node built-ins only. Called by scripts/test.mjs in CI.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const home = path.join(root, '.cache', 'cuda');

// Exact versions: the wheels of one toolkit release, which belong together.
const PACKAGES = [
  'nvidia-cuda-nvcc==13.0.88',
  'nvidia-cuda-crt==13.0.88',
  'nvidia-nvvm==13.0.88',
  'nvidia-cuda-runtime==13.0.96',
  'nvidia-cuda-cccl==13.0.85',
  'nvidia-cublas==13.1.2.11',
];
// Of cuBLAS only headers are compiled against: a machine with a GPU brings its own.
const UNUSED_LIBRARIES = /^lib(cublas|cublasLt|nvblas)\.so/;

const wanted = PACKAGES.join('\n');
const nvcc = path.join(home, 'bin', 'nvcc');

/** Whether setupCuda() has nothing to make. */
export function isCudaSetUp() {
  const stamp = path.join(home, '.stamp');
  return fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === wanted && runs(nvcc);
}

/** `{ ok: true, nvcc }`, or `{ ok: false, reason }`; `say` gets lines about what takes long. */
export function setupCuda({ say = () => {} } = {}) {
  if (process.platform !== 'linux' || !['x64', 'arm64'].includes(process.arch)) {
    return {
      ok: false,
      reason: `there are no CUDA wheels for ${process.platform}-${process.arch}`,
    };
  }
  if (isCudaSetUp()) return { ok: true, nvcc };

  say(`making a CUDA toolchain in ${path.relative(root, home)}: ${PACKAGES.join(' ')}`);
  fs.mkdirSync(path.dirname(home), { recursive: true });
  // Made aside and renamed: a run that was killed leaves nothing that looks made.
  const work = fs.mkdtempSync(path.join(path.dirname(home), '.cuda-'));
  try {
    const venv = path.join(work, 'venv');
    const python = path.join(venv, 'bin', 'python');
    const pip = ['-m', 'pip', '--disable-pip-version-check', '--no-input', 'install'];
    const options = ['--quiet', '--no-deps', '--no-cache-dir', '--no-compile'];
    const only = ['--only-binary=:all:', '--target', path.join(work, 'site')];
    const failure =
      run('python3', ['-m', 'venv', venv]) ??
      run(python, [...pip, ...options, ...only, ...PACKAGES]);
    if (failure) return { ok: false, reason: failure };
    const made = path.join(work, 'site', 'nvidia', 'cu13');
    completeToolkit(made);
    fs.writeFileSync(path.join(made, '.stamp'), wanted);
    fs.rmSync(home, { recursive: true, force: true });
    try {
      fs.renameSync(made, home);
    } catch (error) {
      if (!isCudaSetUp()) throw error; // else another run finished first: the same files
    }
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
  return runs(nvcc) ? { ok: true, nvcc } : { ok: false, reason: `${nvcc} does not run` };
}

/** What an installed toolkit has and the wheels leave out: lib64, and libraries without a version. */
function completeToolkit(toolkit) {
  const lib = path.join(toolkit, 'lib');
  for (const name of fs.readdirSync(lib)) {
    if (UNUSED_LIBRARIES.test(name)) fs.rmSync(path.join(lib, name));
  }
  for (const name of fs.readdirSync(lib)) {
    const plain = /^(lib.+\.so)\.\d+$/.exec(name)?.[1];
    if (plain && !fs.existsSync(path.join(lib, plain))) fs.symlinkSync(name, path.join(lib, plain));
  }
  fs.symlinkSync('lib', path.join(toolkit, 'lib64'));
}

const runs = (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;

/** Undefined, or one line about how it failed. */
function run(command, args) {
  const { error, status, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (error) return `cannot run ${command}: ${error.message}`;
  if (status === 0) return undefined;
  const last = stderr.trim().split('\n').at(-1);
  return `${path.basename(command)} ${args.slice(0, 2).join(' ')} failed (${status}): ${last}`;
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const made = setupCuda({ say: (line) => process.stderr.write(`setup-cuda: ${line}\n`) });
  if (made.ok) {
    const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
    process.stdout.write(`export CUDA_HOME=${quoted(home)} CUDACXX=${quoted(made.nvcc)}\n`);
    process.stdout.write(`export PATH=${quoted(path.join(home, 'bin'))}:"$PATH"\n`);
  } else {
    process.stderr.write(`setup-cuda: ${made.reason}\n`);
    process.exitCode = 1;
  }
}
