// A build plugin (tsdown.config.ts): what the dashboard has beside its script goes into dist/ui as it
// is, the styles as one file behind uPlot's.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const source = fileURLToPath(new URL('../src/ui/', import.meta.url));
const uplot = path.dirname(createRequire(import.meta.url).resolve('uplot'));

export function uiAssets() {
  const read = (file) => fs.readFileSync(path.resolve(source, file), 'utf8');
  return {
    name: 'lorax-ui-assets',
    generateBundle() {
      const emit = (fileName, text) => this.emitFile({ type: 'asset', fileName, source: text });
      emit('index.html', read('index.html'));
      emit('icon.svg', read('icon.svg'));
      const own = fs.readdirSync(path.join(source, 'styles')).sort();
      const styles = [path.join(uplot, 'uPlot.min.css'), ...own.map((file) => `styles/${file}`)];
      emit('app.css', styles.map(read).join('\n'));
    },
  };
}
