import { packageConfig } from '../../tsdown.base.ts';

export default [
  packageConfig({ index: 'src/index.ts' }),
  // A program of its own, which another user of the machine runs: one file, so that it can be read and starts fast.
  packageConfig(
    { sidecar: 'src/egress/sidecar.ts' },
    {
      platform: 'node',
      dts: false,
      // Whoever runs it sees this file alone, and no package.json that says what it is.
      fixedExtension: true,
      clean: false,
      deps: { alwaysBundle: [/^(?!node:)/], onlyBundle: false },
      // Module by module from sources, only what is used of core comes along: without its schemas it starts sooner.
      inputOptions: { resolve: { conditionNames: ['@decant/source', 'node', 'import', 'default'] } },
      outputOptions: { codeSplitting: false },
    },
  ),
];
