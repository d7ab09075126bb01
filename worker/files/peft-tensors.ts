/**
 * The tensors of a PEFT adapter, by name -> what each module of the base model has of them.
 *
 * A tensor that belongs to nothing the base model has, or to something that is not supported, is
 * refused by name; so is one whose shape is not what the module and its rank ask for. Called by
 * peft-adapter.ts.
 */
import { LoraxError } from '../../src/errors.js';
import type { DecoderConfig, NativeAdapterModule, NativeTensor } from '../addon.js';
import { show } from './config-reader.js';
import { isTable, isWholeModule, type Projection, type Target } from './peft-targets.js';
import type { SafetensorsTensor } from './safetensors.js';

/** Of one module. */
export interface ModuleTensors {
  a?: SafetensorsTensor;
  b?: SafetensorsTensor;
  bBias?: SafetensorsTensor;
  magnitude?: SafetensorsTensor;
  whole?: SafetensorsTensor;
}

/** The tensors of a module, as their names end, and what PEFT calls what they are. */
const ENDINGS: readonly [keyof ModuleTensors, RegExp][] = [
  ['a', /\.lora_A(?:\.default)?\.weight$|\.lora_embedding_A(?:\.default)?$/],
  ['b', /\.lora_B(?:\.default)?\.weight$|\.lora_embedding_B(?:\.default)?$/],
  ['bBias', /\.lora_B(?:\.default)?\.bias$/],
  ['magnitude', /\.lora_magnitude_vector(?:\.default)?(?:\.weight)?$/],
  // Trained with modules_to_save, or the base's own, which save_embedding_layers adds.
  ['whole', /(?:\.base_layer|\.modules_to_save(?:\.default)?)?\.weight$/],
];

/** Groups the file's tensors by module; one that has no place there is refused. */
export function groupTensors(
  tensors: Iterable<SafetensorsTensor>,
  all: ReadonlyMap<string, Projection>,
  base: DecoderConfig,
  file: string,
): Map<string, ModuleTensors> {
  const modules = new Map<string, ModuleTensors>();
  for (const tensor of tensors) {
    const found = partOf(tensor, all, base, file);
    if (found === undefined) throw notALora(tensor, file);
    const { module, part } = found;
    const parts = modules.get(module) ?? {};
    if (parts[part] !== undefined) {
      throw invalid(file, tensor.name, `names the same weight as ${parts[part].name}`);
    }
    parts[part] = tensor;
    modules.set(module, parts);
  }
  if (modules.size === 0) {
    throw new LoraxError('ADAPTER_INVALID', `${file}: holds no LoRA tensors`, { data: { file } });
  }
  return modules;
}

function partOf(
  tensor: SafetensorsTensor,
  all: ReadonlyMap<string, Projection>,
  base: DecoderConfig,
  file: string,
): { module: string; part: keyof ModuleTensors } | undefined {
  for (const [part, ending] of ENDINGS) {
    const match = ending.exec(tensor.name);
    if (match === null) continue;
    const module = tensor.name.slice(0, match.index).replace(/^base_model\.model\./, '');
    // A LoRA's own tensors end in ".weight" too, where their names are misspelt.
    if (part === 'whole' && !isWholeModule(module)) return undefined;
    if (!all.has(module)) throw notAProjection(tensor, module, base, file);
    // PEFT names the halves of an embedding otherwise, whose A is a table too.
    const isOfTable = /\.lora_embedding_[AB]/.test(match[0]);
    if ((part === 'a' || part === 'b') && isOfTable !== isTable(module)) return undefined;
    return { module, part };
  }
  return undefined;
}

/** `target.rank` is 0 where the adapter has whole weights of the module and no LoRA. */
export function nativeModule(
  target: Target,
  tensors: ModuleTensors,
  file: string,
): NativeAdapterModule {
  const { name, layer, module, rank, scale, inputSize, outputSize } = target;
  const { a, b, bBias, magnitude, whole } = tensors;
  const out: NativeAdapterModule = { layer, module, rank, scale };
  if (rank > 0) {
    if (a === undefined) throw missing(file, `${name}.lora_A.weight`, b?.name ?? name);
    if (b === undefined) throw missing(file, `${name}.lora_B.weight`, a.name);
    if (a.shape[0] === 0 || b.shape[1] === 0) {
      throw invalid(file, a.name, `rank 0 (shape ${show(a.shape)})`);
    }
    checkMatrix(a, [rank, inputSize], { rank, axis: 0 }, file);
    checkMatrix(b, [outputSize, rank], { rank, axis: 1 }, file);
    out.a = native(a, rank, inputSize, file);
    out.b = native(b, outputSize, rank, file);
  }
  for (const [key, vector] of [
    ['bBias', bBias],
    ['magnitude', magnitude],
  ] as const) {
    if (vector === undefined) continue;
    checkVector(vector, outputSize, file);
    out[key] = native(vector, 1, outputSize, file);
  }
  if (whole !== undefined) {
    const [vocabSize, hiddenSize] = isTable(name)
      ? [inputSize, outputSize]
      : [outputSize, inputSize];
    checkWhole(whole, vocabSize, hiddenSize, file);
    out.whole = native(whole, vocabSize, hiddenSize, file);
  }
  return out;
}

function native(
  { name, dtype, offset }: SafetensorsTensor,
  rows: number,
  cols: number,
  file: string,
): NativeTensor {
  if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16') {
    throw unsupported(file, name, `dtype ${dtype}; use F32, F16 or BF16`);
  }
  return { name, file: 0, dtype, rows, cols, offset };
}

/** Tells a wrong rank (config and tensors disagree) from a wrong size (another base model). */
function checkMatrix(
  { shape, name }: SafetensorsTensor,
  expected: [number, number],
  { rank, axis }: { rank: number; axis: 0 | 1 },
  file: string,
): void {
  if (shape.length === 2 && shape[0] === expected[0] && shape[1] === expected[1]) return;
  const sizeAxis = 1 - axis;
  const why =
    shape.length !== 2
      ? 'a LoRA weight has two dimensions'
      : shape[sizeAxis] !== expected[sizeAxis]
        ? 'it was trained on another base model'
        : `adapter_config.json gives rank ${rank} (r, rank_pattern), the tensor has ${shape[axis]}`;
  throw mismatch(file, name, expected, shape, why);
}

function checkVector({ shape, name }: SafetensorsTensor, size: number, file: string): void {
  if (shape.length === 1 && shape[0] === size) return;
  const why =
    shape.length === 1 ? 'it was trained on another base model' : 'it is one value per output';
  throw mismatch(file, name, [size], shape, why);
}

function checkWhole(
  { shape, name }: SafetensorsTensor,
  vocabSize: number,
  hiddenSize: number,
  file: string,
): void {
  if (shape.length === 2 && shape[0] === vocabSize && shape[1] === hiddenSize) return;
  if (shape.length === 2 && shape[1] === hiddenSize) {
    const what = `a vocabulary of ${shape[0]} tokens, where the base model has ${vocabSize}`;
    throw unsupported(file, name, what);
  }
  const why = 'it was trained on another base model';
  throw mismatch(file, name, [vocabSize, hiddenSize], shape, why);
}

function mismatch(
  file: string,
  field: string,
  expected: number[],
  found: number[],
  why: string,
): LoraxError {
  return new LoraxError(
    'ADAPTER_INVALID',
    `${file}: ${field}: expected shape ${show(expected)}, found ${show(found)}: ${why}`,
    { data: { file, field, expected, found } },
  );
}

function notALora({ name }: SafetensorsTensor, file: string): LoraxError {
  if (/\.token_adapter\./.test(name)) return unsupported(file, name, 'trainable_token_indices');
  if (/\.lora_/.test(name)) {
    return invalid(file, name, 'not named as PEFT saves adapters (".lora_A.weight")');
  }
  const what = 'a tensor beside the LoRA (modules_to_save of another module, bias)';
  return unsupported(file, name, what);
}

function notAProjection(
  tensor: SafetensorsTensor,
  name: string,
  base: DecoderConfig,
  file: string,
): LoraxError {
  const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
  if (layer !== undefined && Number(layer) >= base.numLayers) {
    return invalid(
      file,
      tensor.name,
      `the base model has ${base.numLayers} layers: it was trained on another base model`,
    );
  }
  return invalid(file, tensor.name, `a ${base.architecture} has no projection ${name}`);
}

function missing(file: string, field: string, there: string): LoraxError {
  return invalid(file, field, `missing, though ${there} is there`);
}

function invalid(file: string, field: string, message: string): LoraxError {
  return new LoraxError('ADAPTER_INVALID', `${file}: ${field}: ${message}`, {
    data: { file, field },
  });
}

function unsupported(file: string, field: string, what: string): LoraxError {
  return new LoraxError('ADAPTER_UNSUPPORTED', `${file}: ${field}: ${what}: not supported`, {
    data: { file, field },
  });
}
