import type { UserConfig } from 'tsdown';

import { packageConfig } from '../../tsdown.base.ts';

// Everything the command needs is in one file, so the package has no dependencies. What a command does is still
// evaluated only when it runs; without the comments and white space a start reads half as much.
const oneFile: UserConfig = {
  platform: 'node',
  dts: false,
  deps: { alwaysBundle: [/^(?!node:)/], onlyBundle: false },
  outputOptions: {
    codeSplitting: false,
    minify: { compress: false, mangle: false, codegen: { removeWhitespace: true } },
  },
};

export default [
  packageConfig({ main: 'src/main.ts' }, oneFile),
  // The egress proxy of a bottle is a process of another user, started beside the command's own file.
  packageConfig(
    { sidecar: '../bottle/src/egress/sidecar.ts' },
    {
      ...oneFile,
      clean: false,
      fixedExtension: true,
      inputOptions: { resolve: { conditionNames: ['@decant/source', 'node', 'import', 'default'] } },
    },
  ),
];
