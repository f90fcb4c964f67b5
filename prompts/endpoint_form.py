"""The admin's form of a model endpoint: checked by the same rules as the API."""

from copy import copy
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldBooleanSwitchWidget

from autoforge.errors import AppError
from prompts import services
from prompts.llm.providers.base import Limits, Prices
from prompts.models import ModelEndpoint
from prompts.names import check_endpoint_name

_PRICES = ("input_usd_per_mtok", "output_usd_per_mtok")


class EndpointForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in the stubs only
    """`api_key` is only ever written: an empty field keeps what is stored."""

    api_key = forms.CharField(
        required=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="Stored encrypted and never shown again. Empty keeps the stored one.",
    )
    forget_api_key = forms.BooleanField(required=False, widget=UnfoldBooleanSwitchWidget)

    class Meta:
        model = ModelEndpoint
        fields = [
            "project",
            "name",
            "provider",
            "model",
            "base_url",
            "params",
            *_PRICES,
            *Limits.__struct_fields__,
            "settings",
        ]
        labels = {
            "base_url": "Base URL",
            "params": "Parameters",
            "input_usd_per_mtok": "Price of input",
            "output_usd_per_mtok": "Price of output",
            "requests_per_min": "Requests a minute",
            "tokens_per_min": "Tokens a minute",
            "max_concurrency": "Calls at once",
        }
        help_texts = {
            "params": 'A JSON object that is sent with every call, e.g. {"temperature": 0}.',
            "base_url": "Empty for the provider's own address.",
            "output_usd_per_mtok": "US dollars per million tokens; both empty: from the price list.",
            "max_concurrency": "Limits hold for all processes together. Empty: no limit.",
            "settings": 'How a simulated model behaves; {"stream": false} for one that cannot stream.',
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "model" in self.fields:
            self.fields["model"].required = False
        for name in {"params", "settings"} & self.fields.keys():
            self.fields[name].widget.attrs |= {"rows": 4, "spellcheck": "false"}

    def changes(self) -> services.EndpointChanges:
        """The fields that differ from what is stored, as the services take them."""
        data, changed = self.cleaned_data, set(self.changed_data)
        plain = ("provider", "model", "base_url", "params", "settings")
        changes: dict[str, Any] = {name: data[name] for name in plain if name in changed}
        if changed & set(_PRICES):
            changes["prices"] = (
                Prices(*(data[name] for name in _PRICES)) if data[_PRICES[0]] is not None else None
            )
        if changed & set(Limits.__struct_fields__):
            changes["limits"] = Limits(*(data[name] for name in Limits.__struct_fields__))
        if data["api_key"] or data["forget_api_key"]:
            changes["api_key"] = data["api_key"] or None
        return services.EndpointChanges(**changes)  # type: ignore[typeddict-item]  # those are its keys

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if self.errors:
            return data
        if len({data[name] is None for name in _PRICES}) > 1:
            raise forms.ValidationError("Give both prices or none.")
        try:
            if "name" in data:
                check_endpoint_name(data["name"])
            services.apply_changes(copy(self.instance), self.changes())
        except AppError as error:
            raise forms.ValidationError(error.detail) from error
        return data
