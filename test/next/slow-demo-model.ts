/**
 * The demo model with layers of zeros behind its own: the same answers, more slowly.
 *
 * A layer whose weights are zero adds nothing to the residual stream, but is computed all the same.
 * What takes a person seconds to read then takes the engine seconds to say, so that a test can watch
 * it, stop it or leave in the middle.
 */
import {
  closeSync,
  cpSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';

const WEIGHTS = 'model.safetensors';
const LAYER = 'model.layers.0.';

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

/** Writes to `to` the model of `from` with `extraLayers`; its adapters come along. */
export function writeSlowModel(from: string, to: string, extraLayers: number): void {
  mkdirSync(to, { recursive: true });
  for (const name of ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json']) {
    cpSync(path.join(from, name), path.join(to, name));
  }
  const config = JSON.parse(readFileSync(path.join(from, 'config.json'), 'utf8'));
  const ownLayers: number = config.num_hidden_layers;
  config.num_hidden_layers += extraLayers;
  writeFileSync(path.join(to, 'config.json'), JSON.stringify(config));
  cpSync(path.join(from, 'adapters'), path.join(to, 'adapters'), { recursive: true });
  for (const name of readdirSync(path.join(to, 'adapters'))) {
    keepToLayers(ownLayers, path.join(to, 'adapters', name, 'adapter_config.json'));
  }

  const bytes = readFileSync(path.join(from, WEIGHTS));
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const { __metadata__: _, ...header } = JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes));
  const data = bytes.subarray(8 + headerBytes);
  writeWeights(path.join(to, WEIGHTS), header, data, ownLayers, extraLayers);
}

/** An adapter that says "every layer" means the first `count` from now on. */
function keepToLayers(count: number, configFile: string): void {
  const config = JSON.parse(readFileSync(configFile, 'utf8'));
  if (typeof config.target_modules === 'string') {
    config.target_modules = `(?=.*\\blayers\\.[0-${count - 1}]\\.)${config.target_modules}`;
  } else {
    config.layers_to_transform ??= Array.from({ length: count }, (_, layer) => layer);
  }
  writeFileSync(configFile, JSON.stringify(config));
}

/** The zeros are a hole at the file's end: they take no disk. */
function writeWeights(
  file: string,
  header: Header,
  data: Buffer,
  ownLayers: number,
  extraLayers: number,
): void {
  const layer = Object.entries(header).filter(([name]) => name.startsWith(LAYER));
  let end = data.length;
  for (let i = ownLayers; i < ownLayers + extraLayers; i++) {
    for (const [name, { dtype, shape, data_offsets }] of layer) {
      const begin = end;
      end += data_offsets[1] - data_offsets[0];
      const copy = name.replace(LAYER, `model.layers.${i}.`);
      header[copy] = { dtype, shape, data_offsets: [begin, end] };
    }
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const descriptor = openSync(file, 'w');
  writeSync(descriptor, Buffer.concat([length, json, data]));
  ftruncateSync(descriptor, length.length + json.length + end);
  closeSync(descriptor);
}
