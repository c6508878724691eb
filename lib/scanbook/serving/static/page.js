// Adds preview, drop, paste and answers without a reload to a form that works without it.
"use strict";

const main = document.querySelector("main");
const find = (selector) => main.querySelector(selector);
let shown = "";

function say(text, wrong = false) {
  find("#status").textContent = text;
  find("#status").classList.toggle("wrong", wrong);
}

function enhance() {
  main.classList.add("enhanced");
  find(".call").textContent += ", drop it here or paste it";
}

function preview() {
  const file = find("#image").files[0];
  URL.revokeObjectURL(shown);
  shown = file ? URL.createObjectURL(file) : "";
  const limit = Number(find("form").dataset.maxBytes);
  const tooLarge = file !== undefined && file.size > limit;
  const image = find("#preview");
  image.hidden = true;
  image.onload = () => { image.hidden = false; };
  image.src = shown;
  find("#chosen").hidden = !file;
  find("#chosen").textContent = file ? file.name : "";
  find("button").disabled = tooLarge;
  say(tooLarge ? `This file has ${(file.size / 2 ** 20).toFixed(1)} MB; expected at most ${limit / 2 ** 20} MB.` : "", tooLarge);
}

function take(transfer) {
  const [file] = transfer.files;
  if (!file) {
    say("That is not an image file.", true);
    return;
  }
  const chosen = new DataTransfer();
  chosen.items.add(file);
  find("#image").files = chosen.files;
  preview();
  find("button").focus();
}

async function classify(form) {
  say("Classifying…");
  find("button").disabled = true;
  main.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(form.action, { method: "POST", body: new FormData(form), headers: { Accept: "text/html" } });
    const answer = new DOMParser().parseFromString(await response.text(), "text/html");
    main.replaceChildren(...answer.querySelector("main").childNodes);
    document.title = answer.title;
    enhance();
    find("#answer").focus();
    find("#answer").scrollIntoView({ block: "nearest" });
  } catch {
    say("The service cannot be reached. Try again in a moment.", true);
    find("button").disabled = false;
  } finally {
    main.removeAttribute("aria-busy");
  }
}

main.addEventListener("change", (event) => {
  if (event.target.id === "image") preview();
});
main.addEventListener("submit", (event) => {
  event.preventDefault();
  classify(event.target);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  main.classList.add("dragging");
});
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => main.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer);
});

enhance();
