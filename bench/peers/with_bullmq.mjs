// BullMQ on Node: the same verbs and the same line of JSON as measure.py.
import { Queue, Worker } from "bullmq";

const [verb, url, jobs, concurrency] = [process.argv[2], new URL(process.argv[3]), +process.argv[4], +(process.argv[5] ?? 100)];
const connection = { host: url.hostname, port: +url.port, maxRetriesPerRequest: null };
const options = { removeOnComplete: true };
const queue = new Queue("bench", { connection });
await queue.waitUntilReady();

const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const one = (number) => queue.add("noop", { number }, options);
async function portions(add) {
  for (let start = 0; start < jobs; start += 1000) {
    await add(Array.from({ length: Math.min(1000, jobs - start) }, (_, index) => start + index));
  }
}
const bulk = () => portions((some) => queue.addBulk(some.map((number) => ({ name: "noop", data: { number }, opts: options }))));
const seconds = (began) => Number(process.hrtime.bigint() - began) / 1e9;

let told;
let left = 0;
let runs = [];
function work() {
  return new Worker("bench", async (job) => {
    runs.push(job.data.number);
    if (--left === 0) told();
  }, { connection, concurrency });
}
function expect(count) {
  left = count;
  runs = [];
  return new Promise((done) => { told = done; });
}

let answer;
if (verb === "drain") {
  await bulk();
  const ended = expect(jobs);
  const began = process.hrtime.bigint();
  const worker = work();
  await ended;
  const took = seconds(began);
  await worker.close();
  const distinct = new Set(runs).size;
  if (distinct !== jobs) throw new Error(`only ${distinct} of ${jobs} jobs ran`);
  answer = { rate: jobs / took, ran_twice: runs.length - distinct };
} else if (verb === "latency") {
  const worker = work();
  let ended = expect(1);
  await one(0);
  await ended;
  const took = [];
  for (let number = 1; number <= jobs; number++) {
    await sleep(0.02);
    ended = expect(1);
    const began = process.hrtime.bigint();
    await one(number);
    await ended;
    took.push(seconds(began));
  }
  await worker.close();
  took.sort((one, other) => one - other);
  answer = { median: took[Math.floor(jobs / 2)], p95: took[Math.floor(jobs * 0.95)] };
} else {
  const began = process.hrtime.bigint();
  if (verb === "one") for (let number = 0; number < jobs; number++) await one(number);
  else if (verb === "gathered") await portions((some) => Promise.all(some.map(one)));
  else await bulk();
  answer = { rate: jobs / seconds(began) };
}
await queue.close();
console.log(JSON.stringify(answer));
process.exit(0);
