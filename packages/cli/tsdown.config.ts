import { packageConfig } from '../../tsdown.base.ts';

// Everything the command needs is in one file, so the package has no dependencies. What a command does is still
// evaluated only when it runs; without the comments and white space a start reads half as much.
export default packageConfig(
  { main: 'src/main.ts' },
  {
    platform: 'node',
    dts: false,
    deps: { alwaysBundle: [/^(?!node:)/], onlyBundle: false },
    outputOptions: {
      codeSplitting: false,
      minify: { compress: false, mangle: false, codegen: { removeWhitespace: true } },
    },
  },
);
