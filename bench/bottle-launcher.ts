import { openBottles, stayOpen } from './bottle-launch.ts';

/** Opens as many bottles as it is told, says `ready`, and waits to be killed. Arguments: folder, image file, count. */
const [folder = '', image = '', count = '1'] = process.argv.slice(2);
await openBottles(folder, image, Number(count));
process.stdout.write('ready\n');
await stayOpen();
