import { sleep } from '@decant/core';

import { launchBottle } from './bottle-launch.ts';

/** Launches as many bottles as it is told, says `ready`, and waits to be killed. Arguments: folder, image file, count. */
const [folder = '', image = '', count = '1'] = process.argv.slice(2);
for (let i = 0; i < Number(count); i++) await launchBottle(folder, image);
process.stdout.write('ready\n');
await sleep(600_000);
