import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { afterEach, describe, expect, it } from 'vitest';

import { checkLayers, importsOf } from './check-layers.ts';
import { LAYERS } from './layers.ts';

const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

interface Seed {
  readonly dependencies?: readonly string[];
  readonly devDependencies?: readonly string[];
  readonly bin?: boolean;
  readonly files?: Readonly<Record<string, string>>;
}

function seed(packages: Readonly<Record<string, Seed>>): string {
  const root = mkdtempSync(join(tmpdir(), 'decant-layers-'));
  folders.push(root);
  for (const [name, { dependencies = [], devDependencies = [], bin = false, files = {} }] of Object.entries(packages)) {
    const ranges = (names: readonly string[]) => Object.fromEntries(names.map((other) => [`@decant/${other}`, '1']));
    const manifest = {
      name: `@decant/${name}`,
      version: '0.0.0',
      exports: bin ? { './package.json': './package.json' } : { '.': './src/index.ts' },
      ...(bin ? { bin: { [name]: './bin.cjs' } } : {}),
      dependencies: ranges(dependencies),
      devDependencies: ranges(devDependencies),
    };
    for (const [path, text] of Object.entries({ 'package.json': JSON.stringify(manifest), ...files })) {
      const file = join(root, 'packages', name, path);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, text);
    }
  }
  return root;
}

function problemsOf(packages: Readonly<Record<string, Seed>>): string[] {
  return checkLayers(seed(packages)).violations.map(({ where, problem, reason }) => {
    expect(reason).not.toBe('');
    return `${where}: ${problem}`;
  });
}

const core: Seed = { files: { 'src/index.ts': "export { a } from './a.ts';\n", 'src/a.ts': 'export const a = 1;\n' } };

describe('checkLayers', () => {
  it('finds nothing wrong in this repository, having read it', () => {
    const report = checkLayers();
    expect(report.violations).toEqual([]);
    expect(report.packages).toBeGreaterThan(10);
    expect(report.files).toBeGreaterThan(20);
    expect(report.imports).toBeGreaterThan(20);
  });

  it('accepts imports that the table allows', () => {
    const text = "import { a } from '@decant/core';\nimport type { B } from '@decant/cas/node';\nexport { a, B };\n";
    const files = { 'src/index.ts': text };
    expect(problemsOf({ core, stream: { dependencies: ['core', 'cas'], files } })).toEqual([]);
  });

  it('refuses to be satisfied by an empty tree', () => {
    expect(problemsOf({ core: {} })).toEqual(['packages: 0 files with 0 imports were checked']);
  });

  it('names a package that is not in the table', () => {
    expect(problemsOf({ core, extra: {} })).toEqual([
      'packages/extra/package.json: @decant/extra is not in the table of layers',
    ]);
  });

  it.each([
    ['a dependency on a sibling', 'cas', 'context', /imports context/],
    ['a dependency on a higher row', 'cas', 'server', /imports server/],
    ['a lower package that the table does not list', 'publish', 'jail', /imports jail/],
    ['the test kit', 'cas', 'testkit', /imports testkit/],
    ['a package that does not exist', 'cas', 'nothing', /imports nothing/],
  ])('reports %s in a manifest and in a source', (_, from, target, expected) => {
    const fromManifest = problemsOf({ core, [from]: { devDependencies: [target] } });
    expect(fromManifest).toHaveLength(1);
    expect(fromManifest[0]).toMatch(expected);
    const fromSource = problemsOf({
      core,
      [from]: { files: { 'src/deep/x.ts': `\nimport { y } from '@decant/${target}';\n` } },
    });
    expect(fromSource[0]).toMatch(
      new RegExp(`^packages/${from}/src/deep/x.ts:2: ${expected.source.replace('imports', `${from} imports`)}`),
    );
  });

  it('reports the test kit in tests as well', () => {
    const found = problemsOf({ core, cas: { files: { 'src/x.test.ts': "import { t } from '@decant/testkit';\n" } } });
    expect(found[0]).toContain('cas imports testkit');
  });

  it('reports an import that is not declared, and one that only tests may use', () => {
    const text = "import { a } from '@decant/core';\n";
    expect(problemsOf({ core, cas: { files: { 'src/x.ts': text } } })).toEqual([
      'packages/cas/src/x.ts:1: @decant/core is not among the dependencies of @decant/cas',
    ]);
    const files = { 'src/x.ts': text, 'src/x.test.ts': text };
    expect(problemsOf({ core, cas: { devDependencies: ['core'], files } })).toEqual([
      'packages/cas/src/x.ts:1: @decant/core is not among the dependencies of @decant/cas',
    ]);
    expect(problemsOf({ core, cli: { bin: true, devDependencies: ['core'], files } })).toEqual([]);
  });

  it('reports a relative import that leaves the package', () => {
    const files = { 'src/x.ts': "export * from '../../core/src/index.ts';\n" };
    expect(problemsOf({ core, cas: { files } })).toEqual([
      'packages/cas/src/x.ts:1: ../../core/src/index.ts leaves the package',
    ]);
  });

  it.each(Object.entries(LAYERS).filter(([, layer]) => layer.browser))(
    'keeps Node built-ins out of the main entry of %s',
    (name) => {
      const files = {
        'src/index.ts': "export { a } from './a.ts';\n",
        'src/a.ts': "import { b } from './b.ts';\nexport const a = b;\n",
        'src/b.ts':
          "import type { Readable } from 'node:stream';\nimport { readFile } from 'fs/promises';\nexport const b = readFile;\n",
        'src/node/index.ts': "import { spawn } from 'node:child_process';\n",
      };
      expect(problemsOf({ [name]: { files } })).toEqual([
        `packages/${name}/src/b.ts:2: fs/promises is reachable from the main entry (src/index.ts → src/a.ts → src/b.ts)`,
      ]);
    },
  );

  it('reports the Node entry of another package behind a main entry that runs in a browser', () => {
    const files = { 'src/index.ts': "export { run } from '@decant/core/node';\n" };
    expect(problemsOf({ core, cas: { dependencies: ['core'], files } })).toEqual([
      'packages/cas/src/index.ts:1: @decant/core/node is reachable from the main entry (src/index.ts)',
    ]);
  });

  it('keeps the table itself in order: imports point to lower rows', () => {
    for (const [name, layer] of Object.entries(LAYERS)) {
      for (const target of layer.imports) {
        expect(LAYERS[target]?.row ?? 0, `${name} → ${target}`).toBeLessThan(layer.row);
      }
    }
  });
});

describe('importsOf', () => {
  it('finds every form of import and nothing in other text', () => {
    const text = [
      "import a from 'a';",
      'import {',
      '  type B,',
      '  c as d,',
      "} from './b.ts';",
      "import * as e from 'e';",
      "import 'f';",
      "import type { G } from 'g';",
      "export * from 'h';",
      "export type { I } from 'i';",
      "const j = await import('j');",
      "const k = require('k');",
      "export const no = 'not-an-import';",
      "// import x from 'comment';",
      " * import y from 'documentation';",
      "const text = 'import z from';",
    ].join('\n');
    expect(importsOf(text).map(({ specifier, line, typeOnly }) => [specifier, line, typeOnly])).toEqual([
      ['a', 1, false],
      ['./b.ts', 2, false],
      ['e', 6, false],
      ['f', 7, false],
      ['g', 8, true],
      ['h', 9, false],
      ['i', 10, true],
      ['j', 11, false],
      ['k', 12, false],
    ]);
  });
});
