// Verifies an export of the gateway's audit log, or one of its proof files, in another language than the gateway's:
//
//     node verify.mjs log.jsonl keys          node verify.mjs entry-7.tlog-proof keys
//
// Written from RFC 6962 and c2sp.org (signed-note, tlog-checkpoint, tlog-cosignature, tlog-proof), with Node's standard
// library only. Exits with 0 ok, 1 tampered, 2 never signed, 3 key. ML-DSA-44 is checked where Node's OpenSSL has it (3.5 or later, so
// Node 24), or with a module that is named behind the keys and has `ml_dsa44`: `ml-dsa.js` of @noble/post-quantum. The
// last line says when it was not checked.

import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [file, keyFile, module] = process.argv.slice(2);
const { ml_dsa44: lattice } = module ? await import(pathToFileURL(resolve(module)).href) : {};
const sha = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();
const leafHash = (entry) => sha(Buffer.of(0), entry);
const nodeHash = (left, right) => sha(Buffer.of(1), left, right);
const end = (code, sentence) => { console.log(sentence); process.exit(code); };
const tampered = (sentence) => end(1, sentence);

// Node reads past what is no base64 and no number; two texts for the same thing mean that one of them was made up.
function base64(text) {
  const raw = Buffer.from(text ?? "", "base64");
  return text && raw.toString("base64") === text ? raw : tampered("what should be base64 is not");
}

function decimal(text) {
  return /^(0|[1-9][0-9]{0,15})$/.test(text ?? "") ? Number(text) : tampered("what should be a number is not");
}

// Keys: name+id+base64(type || key).
const PREFIX = {
  1: Buffer.from("302a300506032b6570032100", "hex"), // SubjectPublicKeyInfo of Ed25519
  6: Buffer.from("30820532300b06096086480165030403110382052100", "hex"), // and of ML-DSA-44
};
const keys = readFileSync(keyFile, "utf8").split("\n").filter((line) => line && !line.startsWith("#")).map((line) => {
  const [name, id, material] = line.replace(/^log /, "").split(/\+(.*)/s).flatMap((part, at) =>
    at === 1 ? [part.slice(0, 8), part.slice(9)] : at === 0 ? [part] : []);
  const raw = Buffer.from(material, "base64");
  if (sha(`${name}\n`, raw).subarray(0, 4).toString("hex") !== id) end(3, `the key of ${name} does not have its id`);
  let key = null;
  try {
    key = createPublicKey({ key: Buffer.concat([PREFIX[raw[0]], raw.subarray(1)]), format: "der", type: "spki" });
  } catch { /* a kind of key that this OpenSSL does not know */ }
  return { name, id, kind: raw[0], check: checker(raw, key) };
});
const kinds = new Set(keys.map((key) => key.kind)); // the log signs with each of them, or somebody has taken one away

// Whether a signature under a message holds; null where nobody can say.
function checker(raw, key) {
  if (key) return (signature, message) => verify(null, message, key, signature);
  return raw[0] === 6 && lattice ? (signature, message) => lattice.verify(signature, message, raw.subarray(1)) : null;
}

// A checkpoint, with every signature by a key that we know verified.
function checkpoint(note) {
  const at = note.lastIndexOf("\n\n");
  const text = note.slice(0, at + 1);
  const [origin, size, root, ...more] = text.split("\n");
  if (more.join() !== "") tampered("a checkpoint is origin, size and root");
  const seen = new Set();
  for (const line of note.slice(at + 2).split("\n").filter(Boolean)) {
    const [, name, signature] = line.split(" ");
    const raw = base64(signature);
    const known = keys.find((key) => key.name === name && key.id === raw.subarray(0, 4).toString("hex"));
    if (!known) continue;
    seen.add(known.kind);
    if (known.check && !holds(known, text, { origin, size, root }, raw.subarray(4))) {
      tampered(`the signature of ${name} (${known.id}) under size ${size} does not hold`);
    }
  }
  if (![...kinds].every((kind) => seen.has(kind)) || origin !== keys[0].name) {
    end(3, `the checkpoint over ${size} entries was not signed by these keys, with each kind of them`);
  }
  return { origin, size: decimal(size), root: base64(root) };
}

function holds(known, text, head, signature) {
  if (known.kind === 1) return known.check(signature, Buffer.from(text));
  const name = Buffer.from(known.name);
  const origin = Buffer.from(head.origin);
  const numbers = Buffer.alloc(16);
  numbers.writeBigUInt64BE(BigInt(head.size), 8);
  const message = Buffer.concat([
    Buffer.from("subtree/v1\n\0"), Buffer.of(name.length), name, signature.subarray(0, 8),
    Buffer.of(origin.length), origin, numbers, Buffer.from(head.root, "base64"),
  ]);
  return known.check(signature.subarray(8), message);
}

// RFC 6962 §2.1: perfect subtrees from the left, each half as large as the one before or less.
class Tree {
  constructor() { this.size = 0; this.stack = []; }

  add(leaf) {
    let hash = leaf;
    for (let size = this.size; size & 1; size >>= 1) hash = nodeHash(this.stack.pop(), hash);
    this.stack.push(hash);
    this.size += 1;
  }

  root() {
    if (this.stack.length === 0) return sha();
    return this.stack.slice(0, -1).reduceRight((right, left) => nodeHash(left, right), this.stack.at(-1));
  }
}

// What an entry says of its place: from format 2 on it names its log, the replica that wrote it, and microseconds since
// that began, which only grow. Gives what is wrong; `replicas` is what each of them said last.
function misplaced(record, origin, replicas) {
  let entry;
  try { entry = JSON.parse(record); } catch { return "is none of its format: it cannot be read as JSON"; }
  if (entry === null || typeof entry !== "object") return "is none of its format";
  const { v = 0, log_id: log, replica, mono } = entry;
  if (v > 2) return null; // a format that came later
  if (v < 2) return replicas.size ? "names no log, and those before it do" : null;
  if (typeof log !== "string" || typeof replica !== "string" || !Number.isSafeInteger(mono)) {
    return "is none of its format: it does not name its log, its replica and when";
  }
  if (log !== origin) return `is of another log: ${JSON.stringify(log)}`;
  if (mono <= (replicas.get(replica) ?? -1)) return "was written before, and stands behind a later one or twice";
  replicas.set(replica, mono);
  return null;
}

function verifyLog(text) {
  const [first, ...lines] = text.split("\n");
  const heads = JSON.parse(first).checkpoints.map(checkpoint);
  if (!heads.length) end(2, "nothing is signed: there is no checkpoint");
  const signed = heads.at(-1).size;
  const replicas = new Map();
  let wrong = null; // told at the end: where hashes are wrong, they say more
  if (lines.pop() !== "") tampered("the last line is not whole");
  const tree = new Tree();
  const check = () => {
    while (heads.length && heads[0].size === tree.size) {
      if (!heads.shift().root.equals(tree.root())) tampered(`the first ${tree.size} entries are not what was signed`);
    }
  };
  for (const line of lines) {
    check();
    const found = /^\{"index":(\d+),"leaf":"([0-9a-f]{64})","record":(\{.*\})\}$/s.exec(line);
    if (!found || Number(found[1]) !== tree.size) tampered(`entry ${tree.size} is not in its place`);
    const leaf = leafHash(Buffer.from(found[3]));
    if (leaf.toString("hex") !== found[2]) tampered(`entry ${tree.size} is not what was written`);
    const problem = misplaced(found[3], keys[0].name, replicas);
    if (problem) wrong ??= `entry ${tree.size} ${problem}`;
    tree.add(leaf);
  }
  check();
  if (heads.length) tampered(`entries from ${tree.size} on are missing`);
  if (tree.size > signed) tampered(`entries from ${signed} on were added behind the last checkpoint`);
  if (wrong) tampered(wrong);
  return `${tree.size} entries, all as they were written`;
}

// RFC 9162 §2.1.3.2.
function verifyProof(text) {
  const at = text.indexOf("\n\n");
  const [kind, extra, index, ...path] = text.slice(0, at).split("\n");
  if (kind !== "c2sp.org/tlog-proof@v1" || !extra?.startsWith("extra ") || !index?.startsWith("index ")) {
    end(3, "this is no proof");
  }
  const head = checkpoint(text.slice(at + 2));
  const entry = base64(extra.slice(6));
  let [place, last] = [decimal(index.slice(6)), head.size - 1];
  let root = leafHash(entry);
  if (place > last) tampered("the index lies outside the log");
  for (const line of path) {
    const hash = base64(line);
    if (last === 0) tampered("the proof is too long");
    if (place & 1 || place === last) {
      root = nodeHash(hash, root);
      while (!(place & 1) && place) [place, last] = [place >>> 1, last >>> 1];
    } else {
      root = nodeHash(root, hash);
    }
    [place, last] = [place >>> 1, last >>> 1];
  }
  if (last !== 0 || !root.equals(head.root)) tampered("the proof does not lead to the checkpoint");
  const problem = misplaced(entry, head.origin, new Map());
  if (problem) tampered(`entry ${index.slice(6)} ${problem}`);
  return `entry ${index.slice(6)} is in the log of ${head.size} entries`;
}

const text = readFileSync(file, "utf8");
console.log(text.startsWith("c2sp.org/tlog-proof@") ? verifyProof(text) : verifyLog(text));
if (keys.some((key) => !key.check)) console.log("(Ed25519 only: this OpenSSL does not know ML-DSA-44, and no module was named that does)");
