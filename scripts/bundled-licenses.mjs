// A build plugin (tsdown.config.ts): for the packages whose code a bundle takes in, it writes their
// names, versions and licences beside the bundle. A package without a licence file fails the build.
import fs from 'node:fs';
import path from 'node:path';

/** The folder and name of the package that a module belongs to, if it is not our own. */
function packageOf(moduleId) {
  const match = /^\0?(.*[\\/]node_modules[\\/]((?:@[^\\/]+[\\/])?[^\\/]+))[\\/]/.exec(moduleId);
  return match ? { folder: match[1], name: match[2].replaceAll('\\', '/') } : undefined;
}

function describe({ folder, name }) {
  const { version, license } = JSON.parse(
    fs.readFileSync(path.join(folder, 'package.json'), 'utf8'),
  );
  const file = fs.readdirSync(folder).find((each) => /^licen[cs]e(\.|$)/i.test(each));
  if (!file) throw new Error(`${folder} is bundled but has no licence file`);
  const text = fs.readFileSync(path.join(folder, file), 'utf8').trim();
  return `${name} ${version} (${license})\n\n${text}\n`;
}

/** @param {string} fileName of the list, in the output folder */
export function bundledLicenses(fileName) {
  return {
    name: 'lorax-bundled-licenses',
    generateBundle(_options, bundle) {
      const packages = new Map();
      for (const chunk of Object.values(bundle)) {
        for (const id of chunk.moduleIds ?? []) {
          const found = packageOf(id);
          if (found) packages.set(found.name, found);
        }
      }
      if (packages.size === 0) return;
      const sections = [...packages.keys()].sort().map((name) => describe(packages.get(name)));
      this.emitFile({ type: 'asset', fileName, source: sections.join(`\n${'-'.repeat(72)}\n\n`) });
    },
  };
}
