import { objectStoreContract } from '@decant/core/contract';

import { createMemoryObjectStore } from './memory-store.ts';

objectStoreContract('memory', () =>
  Promise.resolve({ store: createMemoryObjectStore(), [Symbol.asyncDispose]: () => Promise.resolve() }),
);
