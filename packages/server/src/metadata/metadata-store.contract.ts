import { describe } from 'vitest';

import { admissionStoreContract } from './admission-store.contract.ts';
import type { MetadataStoreFixture } from './contract-kit.ts';
import { imageBuildStoreContract } from './image-build-store.contract.ts';
import { jobQueueContract } from './job-queue.contract.ts';
import { keyStoreContract } from './key-store.contract.ts';
import { nameStoreContract } from './name-store.contract.ts';
import { snapshotStoreContract } from './snapshot-store.contract.ts';

/** What every metadata store must do, table by table. */
export function metadataStoreContract(name: string, open: () => Promise<MetadataStoreFixture>): void {
  describe(`MetadataStore contract: ${name}`, () => {
    keyStoreContract(open);
    jobQueueContract(open);
    admissionStoreContract(open);
    nameStoreContract(open);
  });
  imageBuildStoreContract(name, open);
  snapshotStoreContract(name, open);
}
