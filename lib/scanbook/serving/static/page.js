// Adds previews, drop, paste and predictions without a reload to a form that works without this script. The texts come
// from the form's data attributes, so that only the templates are translated.
"use strict";

const find = (selector) => document.querySelector(selector);
let chosen = [];
let sent = [];
let busy = false;

function showStatus(message, wrong = false) {
  find("#status").textContent = message;
  find("#status").classList.toggle("wrong", wrong);
}

function text(key, values = {}) {
  return find("form").dataset[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function megabytes(bytes) {
  return (bytes / 2 ** 20).toLocaleString(document.documentElement.lang, { maximumFractionDigits: 1 });
}

// Returns what is wrong with the chosen files, as text; empty for nothing.
function findProblem() {
  const { maxBytes, maxImages } = find("form").dataset;
  const bytes = chosen.reduce((sum, file) => sum + file.size, 0);
  if (chosen.length > maxImages) return text("tooMany", { count: chosen.length, limit: maxImages });
  if (bytes > maxBytes) return text("tooLarge", { size: megabytes(bytes), limit: megabytes(maxBytes) });
  return "";
}

function thumbnail(file) {
  const item = find("#chosen-image").content.firstElementChild.cloneNode(true);
  const image = item.querySelector("img");
  image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
  // browsers do not show TIFF or DICOM
  image.addEventListener("error", () => {
    const kind = file.name.includes(".") ? file.name.split(".").pop().toUpperCase() : "?";
    image.replaceWith(Object.assign(document.createElement("span"), { className: "unseen", ariaHidden: "true", textContent: kind.slice(0, 5) }));
  });
  image.src = URL.createObjectURL(file);
  item.querySelector(".file").textContent = file.name;
  const button = item.querySelector("button");
  button.setAttribute("aria-label", text("remove", { name: file.name }));
  button.addEventListener("click", () => {
    const index = chosen.indexOf(file);
    choose(chosen.filter((other) => other !== file));
    const buttons = find("#chosen").querySelectorAll("button");
    (buttons[Math.min(index, buttons.length - 1)] ?? find("#image")).focus();
  });
  return item;
}

function choose(files) {
  chosen = files;
  find("#chosen").hidden = !files.length;
  find("#chosen").replaceChildren(...files.map(thumbnail));
  const problem = findProblem();
  find("#send").disabled = busy || problem !== "";
  if (busy && !problem) return;
  showStatus(problem || (files.length ? text("chosen", { count: files.length }) : ""), problem !== "");
}

function take(transfer) {
  if (!transfer.files.length) {
    showStatus(text("noFile"), true);
    return;
  }
  choose([...chosen, ...transfer.files]);
  find("#send").focus();
}

// Shows another page of the service in the place of this one and keeps the files.
function show(page) {
  document.documentElement.lang = page.documentElement.lang;
  document.title = page.title;
  for (const part of ["header", "main", "footer"]) find(part).replaceChildren(...page.querySelector(part).childNodes);
  for (const [index, file] of sent.entries()) {
    for (const slot of document.querySelectorAll(`[data-image="${index + 1}"]`)) slot.textContent = file.name;
  }
  enhance();
}

// The exam and the finding that the form lets a reader choose, where the model has them.
function options() {
  return [...document.querySelectorAll(".option select, .option input")];
}

async function load(address, files) {
  const data = new FormData();
  for (const file of files) data.append(find("#image").name, file);
  for (const option of options()) if (option.type !== "checkbox" || option.checked) data.append(option.name, option.value);
  const request = files.length ? { method: "POST", body: data } : {};
  showStatus(text("busy"));
  busy = true;
  find("#send").disabled = true;
  find("main").setAttribute("aria-busy", "true");
  try {
    const response = await fetch(address, { ...request, headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (!page.querySelector("main")) throw new Error("the response is not a page of the service");
    return page;
  } catch {
    busy = false;
    choose(chosen);
    showStatus(text("lost"), true);
    return null;
  } finally {
    busy = false;
    find("main").removeAttribute("aria-busy");
  }
}

async function classify(form) {
  if (!chosen.length) {
    showStatus(text("none"), true);
    find("#image").focus();
    return;
  }
  if (busy) return;
  const files = chosen;  // the choice may change during the request
  const page = await load(form.action, files);
  if (!page) return;
  const refused = page.querySelector("#answer[role=alert]") !== null;
  sent = refused ? [] : files;
  show(page);
  choose(refused ? chosen : chosen.filter((file) => !files.includes(file)));  // after a problem the choice can be corrected
  find("#answer").focus({ preventScroll: true });
  find("#answer").scrollIntoView();
}

async function translate(link) {
  if (busy) return;
  const page = await load(link.href, sent);
  if (!page) return;
  const before = options();
  show(page);
  for (const [index, option] of options().entries()) {
    option.value = before[index].value;
    option.checked = before[index].checked;
  }
  choose(chosen);
  find(".languages [aria-current]").focus();
}

function enhance() {
  document.documentElement.classList.add("enhanced");
  find("#drop-hint").hidden = false;
}

function add(input) {
  choose([...chosen, ...input.files]);
  input.value = "";  // the same file can be chosen again after it was removed
}

document.addEventListener("change", (event) => {
  if (event.target.type === "file") add(event.target);
});
document.addEventListener("submit", (event) => {
  event.preventDefault();
  classify(event.target);
});
document.addEventListener("click", (event) => {
  const link = event.target.closest(".languages a");
  if (!link || !(sent.length || chosen.length)) return;
  event.preventDefault();
  translate(link);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.documentElement.classList.add("dragging");
});
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, () => document.documentElement.classList.remove("dragging"));
}
document.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer);
});

enhance();
if (find("#image").files.length) add(find("#image"));  // chosen before this script was there
