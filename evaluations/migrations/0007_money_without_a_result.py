from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('evaluations', '0006_results_keep_the_id_of_their_item'),
    ]

    operations = [
        migrations.AddField(
            model_name='run',
            name='unfinished_usd',
            field=models.JSONField(default=dict, help_text='Of its cost: what each worker, by its id, paid for cells that have no result.'),
        ),
    ]
