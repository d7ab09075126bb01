/**
 * An adapter's modules as one array of numbers and one of bytes: hundreds of tensors cross to other threads
 * and to native code (native/binding/packed_modules.cc) in one piece, instead of thousands of fields.
 */
import type { NativeAdapterModule, NativeTensor, PackedModules } from '../addon.js';

const DTYPES: readonly NativeTensor['dtype'][] = ['F32', 'F16', 'BF16'];

export function packModules(modules: readonly NativeAdapterModule[]): PackedModules {
  const numbers: number[] = [];
  const names: Buffer[] = [];
  for (const { layer, module, rank, scale, a, b, bBias, magnitude, whole } of modules) {
    const tensors = [a, b, bBias, magnitude, whole];
    const has = tensors.reduce((bits, tensor, i) => bits + (tensor ? 2 ** i : 0), 0);
    numbers.push(layer, module, rank, scale, has);
    for (const tensor of tensors) {
      if (tensor === undefined) continue;
      const { file, dtype, rows, cols, offset, name } = tensor;
      const spelled = Buffer.from(name);
      numbers.push(file, DTYPES.indexOf(dtype), rows, cols, offset, spelled.length);
      names.push(spelled);
    }
  }
  return { numbers: Float64Array.from(numbers), names: Uint8Array.from(Buffer.concat(names)) };
}
