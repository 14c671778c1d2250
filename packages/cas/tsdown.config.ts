import { packageConfig } from '../../tsdown.base.ts';

export default packageConfig({
  index: 'src/index.ts',
  node: 'src/node/index.ts',
  'stripe-worker': 'src/node/stripe-worker.ts',
  program: 'src/node/program/main.ts',
});
